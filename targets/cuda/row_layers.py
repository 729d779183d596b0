"""Layers that reduce rows of codes, as loop nests: means, large windows, softmax. Some threads for each row.

Nests say what is summed, in TIR; what becomes of the sum is the layer's epilogue, in the text of other layers' kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from tvm import te, tirx, topi

from qcompile.ops import AvgPool2d, Mean, Softmax
from qcompile.reference.arithmetic import out_scale, ratio
from qcompile.targets.cuda.nest_reads import Reads
from qcompile.targets.cuda.nest_rows import find_rows, row_kernel
from qcompile.targets.cuda.nests import read_nests
from qcompile.targets.cuda.storage import Storage, plain
from qcompile.targets.cuda.text import Kernel, finish, literal


def mean(spec: Mean, x: Storage, out: Storage) -> Kernel:
    """``ops.Mean``: buffers x, y."""
    axes = [a % len(x.shape) for a in spec.axes]
    count = prod(x.shape[a] for a in axes)

    def done(total: str) -> str:
        if spec.x is None:
            return finish(f"quotient({total}, {literal(count)})", spec.epilogue)
        factor = literal(ratio(spec.x.scale, count * out_scale(spec.epilogue)))
        return finish(f"product(real({total} - {count * spec.x.zero_point}), {factor})", spec.epilogue)

    return _rows([x], out, lambda t: topi.sum(_summand(t), axes, bool(spec.keepdims)), done)


def window_sums(spec: AvgPool2d, x: Storage, out: Storage) -> Kernel:
    """``ops.AvgPool2d`` whose windows are all inside: buffers x, [multiplier], y."""
    count, images = prod(spec.window), len(x.shape) == 4
    (kh, kw), (sh, sw), (dh, dw) = spec.window, spec.strides, spec.dilation

    def total(t: te.Tensor, *_: te.Tensor) -> te.Tensor:
        a, b = te.reduce_axis((0, kh), "a"), te.reduce_axis((0, kw), "b")

        def element(n: Any, c: Any, *at: Any) -> Any:
            w = at[-1] * sw + b * dw
            return te.sum(_summand(t)(*((n, c, at[0] * sh + a * dh, w) if images else (n, c, w))), axis=[a, b])

        return te.compute(out.shape, element)

    if spec.x is None:
        return _rows([x], out, total, lambda v: finish(f"quotient({v}, {literal(count)})", spec.epilogue))
    zero = count * spec.x.zero_point

    def done(value: str) -> str:
        return finish(f"product(real({value} - {zero}), multiplier[{count}])", spec.epilogue)

    return _rows([x, plain((count + 1,), "float32")], out, total, done, ("x", "multiplier"))


def softmax(spec: Softmax, x: Storage, out: Storage) -> Kernel:
    """``ops.Softmax``: buffers x, exp_table, y."""
    axis, inverse = spec.axis % len(x.shape), tirx.const(float(ratio(1.0, out_scale(spec.epilogue))), "float32")

    def made(t: te.Tensor, table: te.Tensor) -> te.Tensor:
        codes = _summand(t)
        most = topi.max(codes, axis, keepdims=True)

        def power(*index: Any) -> Any:
            return table(most(*(0 if a == axis else i for a, i in enumerate(index))) - codes(*index))

        powers = te.compute(t.shape, power)
        total = topi.sum(powers, axis, keepdims=True)

        def share(*index: Any) -> Any:
            whole = _real(total(*(0 if a == axis else i for a, i in enumerate(index))))
            return _extern("product", _real(powers(*index)), _extern("quotient", inverse, whole))

        return te.compute(t.shape, share)

    table = plain((256,), "int32")
    return _rows([x, table], out, made, lambda value: finish(value, spec.epilogue))


def _rows(
    operands: Sequence[Storage],
    out: Storage,
    make: Callable[..., te.Tensor],
    done: Callable[[str], str],
    names: Sequence[str] = (),
) -> Kernel:
    """The kernel of what ``make`` computes of tensors like the operands; done: the result of its value, as text."""
    tensors = [te.placeholder(s.shape, s.dtype, f"x{i}") for i, s in enumerate(operands)]
    function = te.create_prim_func([*tensors, make(*tensors)])
    *buffers, result = function.params
    nests = read_nests(function) or []
    inlined = {nest.buffer: nest for nest in nests if not nest.buffer.same_as(result)}
    reads = Reads(dict(zip(buffers, operands, strict=True)), inlined)
    reads.used.update({b: names[i] if names else f"x{i}" for i, b in enumerate(buffers)})
    rows = find_rows(nests[-1], reads, out)
    return row_kernel(nests[-1], rows, reads, out, done)


def _summand(t: te.Tensor) -> te.Tensor:
    """Codes as integers that may be summed; floats as they are."""
    return t if t.dtype == "float32" else topi.cast(t, "int32")


def _real(value: Any) -> Any:
    return _extern("real", value)


def _extern(function: str, *args: Any) -> Any:
    return tirx.call_pure_extern("float32", function, *args)
