"""Which kernel each layer of the integer form lowers to, and the storages that it needs.

A row of ``COMPOSITES`` lowers a composite function by its spec; a row of ``OPERATORS`` lowers a plain Relax operator, or
declines (False), and then it stays an island.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from qcompile import ops
from qcompile.ops import Affine
from qcompile.passes.assign_storage import needed_border
from qcompile.passes.base import array, dtype_of, op_name, shape_of
from qcompile.targets.kernels import elementwise, pool, quantize, reduce
from qcompile.targets.kernels.conv import Constants, conv2d, dense
from qcompile.targets.kernels.depthwise import depthwise_conv2d, is_depthwise
from qcompile.targets.storage import BLOCK, Storage

if TYPE_CHECKING:
    from qcompile.passes.lower_layers import Lowering

_FEW_CHANNELS = 4


def storage_of(lowering: Lowering, tensor: relax.Expr) -> Storage:
    """Home of a tensor; a constant follows the layout of the operands beside it, so ask for those first."""
    if isinstance(tensor, relax.Var):
        return lowering.home[tensor]
    return Storage(shape_of(tensor), dtype_of(tensor))


def _like(storage: Storage, model: Storage) -> Storage:
    """A constant operand laid out as its neighbour if it is an image, too."""
    if model.blocked and len(storage.shape) == len(model.shape):
        return replace(storage, block=model.block)
    return storage


def _blocked(storage: Storage, border: tuple[int, int, int, int], fill: float) -> Storage:
    """``storage`` itself if it is blocked and its border will do, else one that will."""
    if storage.blocked and all(have >= need for have, need in zip(storage.border, border, strict=True)):
        if storage.fill == fill or not any(border):
            return storage
    block = storage.block or (storage.shape[1] if storage.shape[1] <= _FEW_CHANNELS else BLOCK)
    return Storage(storage.shape, storage.dtype, block, border, fill)


def _plain(storage: Storage) -> Storage:
    return Storage(storage.shape, storage.dtype)


def _conv2d(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.Conv2d) -> None:
    weight = array(call.args[1])
    x, out, constants, rest = call.args[0], lowering.home[var], _constants(call, spec), _rest(call, spec)
    depthwise = is_depthwise(spec, weight.shape)
    need = needed_border(spec, shape_of(x), weight.shape, shape_of(var))
    source = _blocked(storage_of(lowering, x), need, spec.x.zero_point if spec.x else 0)
    if source.block != BLOCK and (depthwise or spec.groups > 1):
        source = replace(source, block=BLOCK)
    residual = _blocked(lowering.home[rest[0]], (0, 0, 0, 0), 0) if rest else None
    build = depthwise_conv2d if depthwise else conv2d
    kernel = build(spec, constants, source, out, residual, lowering.target)
    args = [lowering.place(x, source)]
    if residual is not None:
        args.append(lowering.place(rest[0], residual))
    op = "depthwise_conv2d" if depthwise else "conv2d"
    lowering.emit(var, kernel.function, args, out, op, kernel.note, kernel.constants)


def _dense(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.Dense) -> None:
    x, constants, rest = call.args[0], _constants(call, spec), _rest(call, spec)
    source, out = Storage(shape_of(x), dtype_of(x)), Storage(shape_of(var), dtype_of(var))
    residual = Storage(shape_of(rest[0]), dtype_of(rest[0])) if rest else None
    kernel = dense(spec, constants, source, out, residual, lowering.target)
    args = [lowering.place(x, source)]
    if residual is not None:
        args.append(lowering.place(rest[0], residual))
    lowering.emit(var, kernel.function, args, out, "dense", kernel.note, kernel.constants)


def _constants(call: relax.Call, spec: ops.Conv2d | ops.Dense) -> Constants:
    return Constants(array(call.args[1]), array(call.args[2]), array(call.args[3]) if spec.x else None)


def _rest(call: relax.Call, spec: ops.Conv2d | ops.Dense) -> list[relax.Expr]:
    """The residual, if there is one."""
    return list(call.args[4 if spec.x else 3 :])


def _binary(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.Binary) -> None:
    out = lowering.home[var]
    storages = [_like(storage_of(lowering, arg), out) for arg in call.args]
    kernel = elementwise.binary(spec, *storages, out=out, target=lowering.target)
    args = [lowering.place(arg, s) for arg, s in zip(call.args, storages, strict=True)]
    lowering.emit(var, kernel, args, out, spec.kind)


def _unary(op: str, build: Callable[..., Any]) -> Callable[..., None]:
    """A composite of one tensor and constants, that takes any storage."""

    def lower(lowering: Lowering, var: relax.Var, call: relax.Call, spec: Any) -> None:
        source, out = storage_of(lowering, call.args[0]), lowering.home[var]
        kernel = build(spec, source, out, lowering.target)
        constants = tuple(np.ascontiguousarray(array(arg)).reshape(-1) for arg in call.args[1:])
        lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, op, constants=constants)

    return lower


COMPOSITES: dict[type, Callable[..., None]] = {
    ops.Conv2d: _conv2d,
    ops.Dense: _dense,
    ops.Binary: _binary,
    ops.Lookup: _unary("lookup", elementwise.lookup),
    ops.Requantize: _unary("requantize", elementwise.requantize),
    ops.AvgPool2d: _unary("avg_pool2d", pool.avg_pool2d),
    ops.Mean: _unary("mean", reduce.mean),
}


def _numbers(values: Any) -> tuple[int, ...]:
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
    source, out = storage_of(lowering, call.args[0]), lowering.home[var]
    kernel = quantize.quantize(affine, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "quantize")
    return True


def _dequantize(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    affine = _affine(call, dtype_of(call.args[0]))
    if affine is None or not isinstance(call.args[0], relax.Var):
        return False
    source, out = storage_of(lowering, call.args[0]), lowering.home[var]
    kernel = quantize.dequantize(affine, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "dequantize")
    return True


def _max_pool(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    a, out = call.attrs, lowering.home[var]
    window, strides, padding, dilation = (_numbers(v) for v in (a.pool_size, a.strides, a.padding, a.dilation))
    if len(shape_of(var)) == 3:
        window, strides, dilation = (1, *window), (1, *strides), (1, *dilation)
        padding = (0, padding[0], 0, padding[1])
    source = _blocked(storage_of(lowering, call.args[0]), (0, 0, 0, 0), 0)
    kernel = pool.max_pool2d(window, strides, padding, dilation, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "max_pool2d")
    return True


def _clip(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    bounds = (0.0, float("inf"))
    if op_name(call) == "clip":
        bounds = (float(call.args[1].value), float(call.args[2].value))
    if dtype_of(var) not in ("float32", "uint8") or not isinstance(call.args[0], relax.Var):
        return False
    codes = Affine(1.0, 0) if dtype_of(var) == "uint8" else None  # bounds of a clip on codes are codes
    source, out = storage_of(lowering, call.args[0]), lowering.home[var]
    kernel = elementwise.clip(bounds, codes, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "clip")
    return True


def _reshape(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    """No kernel: the same buffer under another shape."""
    x = call.args[0]
    if not isinstance(x, relax.Var):
        return False
    source = Storage(shape_of(x), dtype_of(x))
    lowering.alias(var, lowering.place(x, source), Storage(shape_of(var), dtype_of(var)))
    return True


OPERATORS: dict[str, Callable[[Lowering, relax.Var, relax.Call], bool]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "nn.max_pool2d": _max_pool,
    "nn.max_pool1d": _max_pool,
    "nn.relu": _clip,
    "clip": _clip,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "flatten": _reshape,
}
