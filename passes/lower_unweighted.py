"""Lowers layers without weights: element by element, pooling, and where numbers change their form."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from qcompile import ops
from qcompile.ops import Affine
from qcompile.passes.base import array, dtype_of, number, op_name, shape_of
from qcompile.passes.operand_storage import beside, blocked, home, plain
from qcompile.targets.kernels import elementwise, gather, movement, pool, quantize, reduce, resize, softmax

if TYPE_CHECKING:
    from qcompile.passes.lower_layers import Lowering


def _binary(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.Binary) -> None:
    out = lowering.home[var]
    a, b = (beside(arg, lowering, out) for arg in call.args)
    kernel = elementwise.binary(spec, a, b, out, lowering.target)
    args = [lowering.place(arg, s) for arg, s in zip(call.args, (a, b), strict=True)]
    lowering.emit(var, kernel, args, out, spec.kind)


def _unary(op: str, build: Callable[..., Any]) -> Callable[..., None]:
    """A composite of one tensor and constants, that takes any storage."""

    def lower(lowering: Lowering, var: relax.Var, call: relax.Call, spec: Any) -> None:
        source, out = home(lowering, call.args[0]), lowering.home[var]
        kernel = build(spec, source, out, lowering.target)
        constants = tuple(np.ascontiguousarray(array(arg)).reshape(-1) for arg in call.args[1:])
        lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, op, constants=constants)

    return lower


def _concat(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.Concat) -> None:
    out = lowering.home[var]
    storages = [beside(arg, lowering, out) for arg in call.args]
    kernel = movement.concat(spec, *storages, out=out, target=lowering.target)
    lowering.emit(var, kernel, [lowering.place(a, s) for a, s in zip(call.args, storages, strict=True)], out, "concat")


def _gather(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.Gather) -> None:
    table, scale, indices, *more = call.args
    source, out = plain(indices), plain(var)
    addend = more[1:] if spec.group else more
    rows = shape_of(addend[0])[0] if addend else 0
    kernel = gather.gather(shape_of(table), rows, source, out, lowering.target, spec.group, dtype_of(table))
    codes = gather.pack_rows(array(table), spec.group) if spec.group else array(table)
    constants = tuple(np.ascontiguousarray(c).reshape(-1) for c in (codes, *(array(a) for a in (scale, *more))))
    lowering.emit(var, kernel, [lowering.place(indices, source)], out, "gather", constants=constants)


UNWEIGHTED: dict[type, Callable[..., None]] = {
    ops.Binary: _binary,
    ops.Concat: _concat,
    ops.Lookup: _unary("lookup", elementwise.lookup),
    ops.Requantize: _unary("requantize", quantize.requantize),
    ops.AvgPool2d: _unary("avg_pool2d", pool.avg_pool2d),
    ops.Mean: _unary("mean", reduce.mean),
    ops.ResizeLinear: _unary("resize_linear", resize.resize_linear),
    ops.Softmax: _unary("softmax", softmax.softmax),
    ops.ChannelShuffle: _unary("channel_shuffle", movement.channel_shuffle),
    ops.Gather: _gather,
}


def _numbers(values: Any) -> Any:
    return tuple(int(v) for v in values)


def _affine(call: relax.Call, dtype: str) -> Affine | None:
    """Parameters of a per-tensor quantize or dequantize; None for a per-channel one."""
    scale, zero_point = array(call.args[1]), array(call.args[2])
    if scale is None or zero_point is None or scale.size != 1 or dtype not in ("uint8", "int8"):
        return None
    return Affine(float(scale.reshape(-1)[0]), int(zero_point.reshape(-1)[0]), dtype)


def _quantize(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    affine = _affine(call, dtype_of(var))
    if affine is None:
        return False
    source, out = home(lowering, call.args[0]), lowering.home[var]
    kernel = quantize.quantize(affine, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "quantize")
    return True


def _dequantize(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    affine = _affine(call, dtype_of(call.args[0]))
    if affine is None or not isinstance(call.args[0], relax.Var):
        return False
    source, out = home(lowering, call.args[0]), lowering.home[var]
    kernel = quantize.dequantize(affine, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "dequantize")
    return True


def _max_pool(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    a, out = call.attrs, lowering.home[var]
    window, strides, padding, dilation = (_numbers(v) for v in (a.pool_size, a.strides, a.padding, a.dilation))
    if len(shape_of(var)) == 3:
        window, strides, dilation = (1, *window), (1, *strides), (1, *dilation)
        padding = (0, padding[0], 0, padding[1])
    source = blocked(home(lowering, call.args[0]))
    kernel = pool.max_pool2d(window, strides, padding, dilation, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "max_pool2d")
    return True


def _clip(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    bounds = (0.0, float("inf"))
    if op_name(call) == "clip":
        bounds = (number(call.args[1]), number(call.args[2]))
    dtype = dtype_of(var)
    if dtype not in ("float32", "uint8", "int8") or not isinstance(call.args[0], relax.Var):
        return False
    codes = None if dtype == "float32" else Affine(1.0, 0, dtype)  # bounds of a clip on codes are codes
    source, out = home(lowering, call.args[0]), lowering.home[var]
    kernel = elementwise.clip(bounds, codes, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "clip")
    return True


OPERATORS: dict[str, Callable[[Lowering, relax.Var, relax.Call], bool]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "nn.max_pool2d": _max_pool,
    "nn.max_pool1d": _max_pool,
    "nn.relu": _clip,
    "clip": _clip,
}
