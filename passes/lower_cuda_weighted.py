"""The CUDA kernel of each layer with weights: convolutions of every kind, and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from qcompile import ops
from qcompile.formats import added_as, format_with
from qcompile.manifest import ScheduleInfo
from qcompile.passes.base import array, dtype_of, shape_of
from qcompile.passes.lower_weighted import as_convolution
from qcompile.targets.cuda import movement
from qcompile.targets.cuda.architectures import architecture
from qcompile.targets.cuda.constants import has_own_groups
from qcompile.targets.cuda.contract import Shape, contract, contract_floats, conv_shape
from qcompile.targets.cuda.depthwise import depthwise
from qcompile.targets.cuda.float_product import float_product
from qcompile.targets.cuda.storage import NARROW, Storage, channels_last, rows_last
from qcompile.targets.kernels.depthwise import is_depthwise
from qcompile.targets.kernels.reduction import block_diagonal
from qcompile.targets.kernels.template import knobs_json
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import Storage as Plain

if TYPE_CHECKING:
    from qcompile.passes.cuda_memory import Buffer
    from qcompile.passes.lower_cuda import CudaLowering


@dataclass(frozen=True, slots=True)
class _Product:
    """A layer with weights, ready for its kernel.

    others: its arguments behind input and weight: bias, multiplier and scales of groups of an integer layer, residual
    if there is one.
    weight: (O, C/groups, KH, KW). x, source: how its input lies, and where.
    """

    var: relax.Var
    others: Sequence[relax.Expr]
    spec: ops.Conv2d | ops.Dense
    shape: Shape
    weight: np.ndarray
    x: Storage
    source: Buffer
    out: Storage


def _conv2d(lowering: CudaLowering, var: relax.Var, call: relax.Call, spec: ops.Conv2d) -> None:
    weight = _weight(lowering, call, spec)
    weight = weight if weight.ndim == 4 else weight[:, :, None]
    x = channels_last(shape_of(call.args[0]), _read(spec, call))
    _convolved(lowering, var, call, spec, weight, x, lowering.place(call.args[0], x))


def _own_groups(spec: ops.Conv2d, weight: np.ndarray) -> bool:
    return has_own_groups(spec.groups, weight.shape[1], weight.shape[0] // spec.groups)


def _read(spec: ops.Conv2d | ops.ConvTranspose2d | ops.Dense, call: relax.Call) -> str:
    """The dtype in which a layer reads its input."""
    return dtype_of(call.args[0]) if spec.x is not None else spec.activations


def _written(lowering: CudaLowering, var: relax.Var, whole: bool = True) -> str:
    """The dtype in which a layer writes its result. whole: with what pads the channels, which must not be NaN."""
    narrow = lowering.narrow.get(var, dtype_of(var))
    return narrow if whole or channels_last(shape_of(var), narrow).pitch == shape_of(var)[1] else dtype_of(var)


def _conv_transpose2d(lowering: CudaLowering, var: relax.Var, call: relax.Call, spec: ops.ConvTranspose2d) -> None:
    """The pixels spread apart by the stride, then an ordinary convolution with the window turned round."""
    weight, conv = as_convolution(spec, _weight(lowering, call, spec))
    x = channels_last(shape_of(call.args[0]), _read(spec, call))
    n, c, *spatial = x.shape
    strides = spec.strides[-len(spatial) :]
    shape = (n, c, *((extent - 1) * stride + 1 for extent, stride in zip(spatial, strides, strict=True)))
    wide = channels_last(shape, x.dtype)
    spread = movement.spread(strides, spec.x.zero_point if spec.x else 0, x, wide)
    apart = lowering.call(spread, [lowering.place(call.args[0], x)], wide, f"{var.name}~spread", "spread")
    _convolved(lowering, var, call, conv, weight, wide, apart)


def _convolved(
    lowering: CudaLowering,
    var: relax.Var,
    call: relax.Call,
    spec: ops.Conv2d,
    weight: np.ndarray,
    x: Storage,
    source: Buffer,
) -> None:
    """weight: (O, C/groups, KH, KW)."""
    whole = spec.groups == 1 or (spec.x is None and not _own_groups(spec, weight))
    out = channels_last(shape_of(var), _written(lowering, var, whole))
    layer = _Product(var, call.args[2:], spec, conv_shape(spec, weight.shape[2:], x, out), weight, x, source, out)
    if spec.x is None:
        _float_weighted(lowering, layer, "conv2d")
    elif is_depthwise(spec, weight.shape):
        _weighted(lowering, layer, "depthwise_conv2d", depthwise)
    elif _own_groups(spec, weight):
        _weighted(lowering, layer, "conv2d_int4" if spec.group else "conv2d", contract)
    else:
        _weighted(lowering, replace(layer, weight=block_diagonal(weight, spec.groups)), "conv2d", contract)


def _dense(lowering: CudaLowering, var: relax.Var, call: relax.Call, spec: ops.Dense) -> None:
    weight = _weight(lowering, call, spec)[:, :, None, None]
    x, out = rows_last(shape_of(call.args[0]), _read(spec, call)), rows_last(shape_of(var), _written(lowering, var))
    source, shape = lowering.place(call.args[0], x), Shape(x.rows, 1, 1, 1, 1)
    layer = _Product(var, call.args[2:], spec, shape, weight, x, source, out)
    if spec.x is None:
        _float_weighted(lowering, layer, "dense")
    else:
        _weighted(lowering, layer, "dense_int4" if spec.group else "dense", contract)


def _weight(lowering: CudaLowering, call: relax.Call, spec: Any) -> np.ndarray:
    """int8 of integer layers, else float32: the numbers that the layer's weights are, without their scales."""
    lowering.check(format_with(spec.activations, spec.weights).name)
    weight = array(call.args[1])
    return weight if spec.x is not None else weight.astype(np.float32)


def _float_weighted(lowering: CudaLowering, layer: _Product, op: str) -> None:
    spec, shape, x, out = layer.spec, layer.shape, layer.x, layer.out
    bias, *rest = layer.others
    multiplier = array(rest.pop(0)) if spec.scaled else None
    scales = array(rest.pop(0)) if spec.group else None
    residual = (rows_last if out.axis > 1 else channels_last)(out.shape, added_as(x.dtype)) if rest else None
    gpu, arguments = architecture(lowering.target.architecture), (layer.weight, array(bias), x, out, residual)
    schedule = None
    has_products = x.is_narrow or (spec.weights == "float32" and gpu.multiplies_float32)
    if has_products and (not isinstance(spec, ops.Conv2d) or _own_groups(spec, layer.weight)):
        tile, schedule = _scheduled(lowering, layer, residual, f"{op}_float_cuda")
        kernel, constants = contract_floats(spec, shape, *arguments, tile, gpu, multiplier)
    else:
        kernel, constants = float_product(spec, shape, *arguments, gpu, multiplier, scales)
    residuals = [lowering.place(r, residual) for r in rest]
    name = f"{op}_{NARROW.get(x.dtype, 'f32')}"
    name += "" if spec.weights == x.dtype else f"_{NARROW.get(spec.weights, spec.weights)}"
    lowering.emit(layer.var, kernel, [layer.source, *constants, *residuals], out, name, schedule)


def _weighted(lowering: CudaLowering, layer: _Product, op: str, build: Callable[..., Any]) -> None:
    x, out = layer.x, layer.out
    bias, multiplier, *rest = layer.others
    scales = {"group_scale": array(rest.pop(0))} if layer.spec.group else {}
    residual = (rows_last if out.axis > 1 else channels_last)(out.shape, dtype_of(rest[0])) if rest else None
    constants = (layer.weight, array(bias), array(multiplier))
    knobs, schedule = _scheduled(lowering, layer, residual, f"{op}_cuda")
    gpu = architecture(lowering.target.architecture)
    kernel, packed = build(layer.spec, layer.shape, *constants, x, out, residual, knobs, gpu, **scales)
    residuals = [lowering.place(r, residual) for r in rest]
    lowering.emit(layer.var, kernel, [layer.source, *packed, *residuals], out, op, schedule)


def _scheduled(
    lowering: CudaLowering, layer: _Product, residual: Storage | None, operator: str
) -> tuple[Any, ScheduleInfo]:
    """The knobs that are known for the layer's workload, else the default ones."""
    spec, weight, target = layer.spec, layer.weight.shape, lowering.target
    if isinstance(spec, ops.Conv2d):
        spec = replace(spec, groups=layer.x.channels // weight[1])  # which may have been made one
    else:
        weight = weight[:2]
    x, out, added = (None if s is None else Plain(s.shape, s.dtype) for s in (layer.x, layer.out, residual))
    workload = Workload.of(operator, spec, weight, x, out, added, target.threads)
    template, schedule = TEMPLATES[operator], lowering.schedules(workload)
    knobs = template.default(workload, target) if schedule.knobs is None else schedule.knobs
    about = (workload.key, workload.batch, template.version, knobs_json(knobs), schedule.source, target.architecture)
    return knobs, ScheduleInfo(lowering.layer, *about)


WEIGHTED: dict[type, Callable[..., None]] = {
    ops.Conv2d: _conv2d,
    ops.ConvTranspose2d: _conv_transpose2d,
    ops.Dense: _dense,
}
