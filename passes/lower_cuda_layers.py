"""The CUDA kernel of each layer: composites by their specification, plain operators by their name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from qcompile import ops
from qcompile.ops import Affine
from qcompile.passes import lower_cuda_functions as functions
from qcompile.passes.base import array, dtype_of, number, op_name, shape_of
from qcompile.passes.lower_cuda_movement import MOVEMENT, Part, concat, moves_by_kernel
from qcompile.passes.lower_cuda_weighted import WEIGHTED
from qcompile.targets.cuda import elementwise, movement, pool, row_layers
from qcompile.targets.cuda.storage import Storage, channels_last, plain, rows_last

if TYPE_CHECKING:
    from qcompile.passes.lower_cuda import CudaLowering


def _binary(lowering: CudaLowering, var: relax.Var, call: relax.Call, spec: ops.Binary) -> None:
    _two(lowering, var, call, spec.kind, lambda a, b, out: elementwise.binary(spec, a, b, out))


def _two(lowering: CudaLowering, var: relax.Var, call: relax.Call, op: str, build: Callable[..., Any]) -> None:
    """Two operands, broadcast to the result: their shapes get leading axes of extent 1."""
    out = lowering.home(var)
    storages, buffers = [], []
    for arg in call.args:
        shape = shape_of(arg)
        wide = (*[1] * (len(out.shape) - len(shape)), *shape)
        if len(shape) == len(out.shape):
            like = rows_last if out.axis == len(out.shape) - 1 else channels_last
            storage = like(shape, dtype_of(arg))
            buffers.append(lowering.place(arg, storage))
        else:
            storage = plain(wide, dtype_of(arg))
            buffers.append(lowering.place(arg, plain(shape, dtype_of(arg))))
        storages.append(storage)
    lowering.emit(var, build(*storages, out), buffers, out, op.rpartition(".")[2])


def _unary(op: str, build: Callable[..., Any]) -> Callable[..., None]:
    """A composite of one tensor and constants, that takes any storage."""

    def lower(lowering: CudaLowering, var: relax.Var, call: relax.Call, spec: Any) -> None:
        out = lowering.home(var)
        constants = [np.ascontiguousarray(array(arg)) for arg in call.args[1:]]
        _one(lowering, var, call.args[0], lambda x: build(spec, x, out), out, op, constants)

    return lower


def _one(
    lowering: CudaLowering,
    var: relax.Var,
    x: relax.Expr,
    build: Callable[[Storage], Any],
    out: Storage,
    op: str,
    constants: Sequence[np.ndarray] = (),
) -> None:
    source = lowering.home(x)
    lowering.emit(var, build(source), [lowering.place(x, source), *constants], out, op)


def _concat(lowering: CudaLowering, var: relax.Var, call: relax.Call, spec: ops.Concat) -> None:
    def converter(q: Affine) -> Callable[[str], str]:
        return lambda code: elementwise.requantized(code, q, spec.out)

    pairs = zip(call.args, spec.inputs, strict=True)
    concat(lowering, var, [Part(arg, converter(q), (q, spec.out)) for arg, q in pairs], spec.axis)


def _gather(lowering: CudaLowering, var: relax.Var, call: relax.Call, spec: ops.Gather) -> None:
    table, scale, indices, *rest = call.args
    out = rows_last(shape_of(var), dtype_of(var))
    ids = plain(shape_of(indices), dtype_of(indices))
    constants = [elementwise.widened(array(a)) for a in (table, scale, *rest)]
    kernel = elementwise.gather(spec, ids, out, constants)
    lowering.emit(var, kernel, [lowering.place(indices, ids), *constants], out, "gather")


def _max_pool(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    a, out = call.attrs, lowering.home(var)
    size, strides, padding, dilation = (
        tuple(int(v) for v in values) for values in (a.pool_size, a.strides, a.padding, a.dilation)
    )
    if len(out.shape) == 3:
        size, strides, dilation = (1, *size), (1, *strides), (1, *dilation)
        padding = (0, padding[0], 0, padding[1])
    window: Any = (size, strides, padding, dilation)
    _one(lowering, var, call.args[0], lambda x: pool.max_pool2d(window, x, out), out, "max_pool2d")


def _clip(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    """Of codes."""
    bounds, out = (0.0, float("inf")), lowering.home(var)
    if op_name(call) == "clip":
        bounds = (number(call.args[1]), number(call.args[2]))
    _one(lowering, var, call.args[0], lambda x: elementwise.clip(bounds, x, out), out, "clip")


_CODES = ("uint8", "int8")
COMPOSITES: dict[type, Callable[..., None]] = {
    **WEIGHTED,
    ops.Binary: _binary,
    ops.Concat: _concat,
    ops.Lookup: _unary("lookup", elementwise.lookup),
    ops.Requantize: _unary("requantize", elementwise.requantize),
    ops.AvgPool2d: _unary("avg_pool2d", pool.avg_pool2d),
    ops.Mean: _unary("mean", row_layers.mean),
    ops.ResizeLinear: _unary("resize_linear", pool.resize_linear),
    ops.Softmax: _unary("softmax", row_layers.softmax),
    ops.Gather: _gather,
    ops.ChannelShuffle: _unary("channel_shuffle", lambda spec, *s: movement.channel_shuffle(spec.groups, *s)),
}
OPERATORS: dict[str, Callable[..., None]] = {
    "nn.max_pool2d": _max_pool,
    "nn.max_pool1d": _max_pool,
    "nn.relu": _clip,
    "clip": _clip,
    "call_tir": functions.call_tir,
    "topk": functions.topk,
    "sort": functions.sorted_values,
    "argsort": functions.argsort,
    "cumsum": functions.scan,
    "cumprod": functions.scan,
    **MOVEMENT,
}


def has_row(call: relax.Call) -> bool:
    """Whether a row of ``OPERATORS`` takes a call; loop nests are made of others."""
    name = op_name(call)
    if name in ("clip", "nn.relu"):  # those of floats fuse
        return dtype_of(call.args[0]) in _CODES
    if name in ("nn.max_pool2d", "nn.max_pool1d"):
        return dtype_of(call.args[0]) in (*_CODES, "float32")
    return name in OPERATORS and moves_by_kernel(call)
