"""Lowers layers with weights: convolutions of every kind, and matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tvm import relax

from qcompile import ops
from qcompile.formats import added_as
from qcompile.manifest import ScheduleInfo
from qcompile.passes.assign_storage import needed_border
from qcompile.passes.base import array, shape_of
from qcompile.passes.operand_storage import blocked, home, plain
from qcompile.reference.narrow import NARROW
from qcompile.targets.kernels.builder import STORED_AS_BITS
from qcompile.targets.kernels.conv import Constants
from qcompile.targets.kernels.depthwise import is_depthwise
from qcompile.targets.kernels.dilate import dilate
from qcompile.targets.kernels.narrow import round_to
from qcompile.targets.kernels.template import knobs_json
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import BLOCK, Storage

if TYPE_CHECKING:
    from qcompile.passes.lower_layers import Lowering

Weighted = ops.Conv2d | ops.ConvTranspose2d | ops.Dense


def _conv2d(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.Conv2d) -> None:
    weight = array(call.args[1])
    x, out, constants, rest = call.args[0], lowering.home[var], _constants(call, spec), _rest(call, spec)
    depthwise = is_depthwise(spec, weight.shape)
    need = needed_border(spec, shape_of(x), weight.shape, shape_of(var))
    source = as_read(blocked(home(lowering, x), need, spec.x.zero_point if spec.x else 0), spec)
    if source.block != BLOCK and (depthwise or spec.groups > 1):
        source = replace(source, block=BLOCK)
    residual = as_read(blocked(lowering.home[rest[0]]), spec) if rest else None
    args = [lowering.place(x, source)]
    if residual is not None:
        args.append(lowering.place(rest[0], residual))
    operator = "depthwise_conv2d" if depthwise else "conv2d_int4" if spec.group else "conv2d"
    _emit(lowering, var, args, operator, operator, spec, constants, source, out, residual)


def as_read(storage: Storage, spec: Weighted) -> Storage:
    """A tensor of floats as a layer reads it: in bfloat16 where the layer rounds it to that."""
    return replace(storage, dtype=spec.activations) if storage.is_float and spec.activations == "bfloat16" else storage


def _conv_transpose2d(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.ConvTranspose2d) -> None:
    """The pixels spread apart by the stride, then an ordinary convolution with the window turned round.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.
    """
    turned, conv = as_convolution(spec, array(call.args[1]))
    x, out, rest = call.args[0], lowering.home[var], _rest(call, spec)
    source = as_read(replace(blocked(home(lowering, x)), block=BLOCK), spec)
    n, c, height, width = source.image
    spread_shape = (n, c, (height - 1) * spec.strides[0] + 1, (width - 1) * spec.strides[1] + 1)
    border = needed_border(conv, spread_shape, turned.shape, out.image)
    fill = spec.x.zero_point if spec.x else 0
    spread = blocked(Storage(spread_shape, source.dtype, BLOCK, fill=fill), border, fill)  # fill: also between pixels
    apart = lowering.step(
        dilate(spec.strides, source, spread, lowering.target), [lowering.place(x, source)], spread, var, "dilate"
    )
    constants = Constants(turned, array(call.args[2]), array(call.args[3]) if spec.scaled else None)
    residual = as_read(blocked(lowering.home[rest[0]]), spec) if rest else None
    args = [apart, *([lowering.place(rest[0], residual)] if rest else [])]
    _emit(lowering, var, args, "conv_transpose2d", "conv2d", conv, constants, spread, out, residual)


def as_convolution(spec: ops.ConvTranspose2d, weight: np.ndarray) -> tuple[np.ndarray, ops.Conv2d]:
    """The window turned round, and the convolution of the pixels spread apart. weight: (C, O/groups, [KH,] KW)."""
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    inputs, per_group, kh, kw = weight.shape
    turned = weight.reshape(spec.groups, inputs // spec.groups, per_group, kh, kw)[..., ::-1, ::-1]
    turned = np.ascontiguousarray(turned.swapaxes(1, 2)).reshape(spec.groups * per_group, inputs // spec.groups, kh, kw)
    (dh, dw), (top, left, bottom, right) = spec.dilation, spec.padding
    padding = (
        dh * (kh - 1) - top,
        dw * (kw - 1) - left,
        dh * (kh - 1) - bottom + spec.output_padding[0],
        dw * (kw - 1) - right + spec.output_padding[1],
    )
    numbers = ((1, 1), padding, spec.dilation, spec.groups)
    return turned, ops.Conv2d(*numbers, spec.x, spec.epilogue, spec.weights, reads=spec.reads)


def _dense(lowering: Lowering, var: relax.Var, call: relax.Call, spec: ops.Dense) -> None:
    x, constants, rest = call.args[0], _constants(call, spec), _rest(call, spec)
    source, out = as_read(plain(x), spec), replace(plain(var), dtype=lowering.home[var].dtype)
    residual = as_read(plain(rest[0]), spec) if rest else None
    args = [lowering.place(x, source)]
    if residual is not None:
        args.append(lowering.place(rest[0], residual))
    operator = "dense_int4" if spec.group else "dense"
    _emit(lowering, var, args, operator, operator, spec, constants, source, out, residual)


def _emit(
    lowering: Lowering,
    var: relax.Var,
    args: list[relax.Expr],
    name: str,
    operator: str,
    spec: ops.Conv2d | ops.Dense,
    constants: Constants,
    x: Storage,
    out: Storage,
    residual: Storage | None,
) -> None:
    """Binds ``var`` to the kernel of ``operator``'s template with the knobs that are known for the workload."""
    workload = Workload.of(operator, spec, constants.weight.shape, x, out, residual, lowering.target.threads)
    template, target, schedule = TEMPLATES[operator], lowering.target, lowering.schedules(workload)
    knobs = schedule.knobs if schedule.knobs is not None else template.default(workload, target)
    kernel = template.build(spec, constants, x, out, residual, target, knobs)
    info = ScheduleInfo(
        lowering.layer, workload.key, workload.batch, template.version, knobs_json(knobs), schedule.source
    )
    lowering.emit(var, kernel.function, args, out, name, kernel.note, kernel.constants, info)


def _constants(call: relax.Call, spec: ops.Conv2d | ops.Dense) -> Constants:
    weight, bias, *more = (array(argument) for argument in call.args[1 : _first_of_rest(spec)])
    weight = weight.astype(np.float32) if spec.weights in STORED_AS_BITS else weight
    return Constants(weight, bias, *more) if more else Constants(weight, bias, None)


def _rest(call: relax.Call, spec: Weighted) -> list[relax.Expr]:
    """The residual, if there is one."""
    return list(call.args[_first_of_rest(spec) :])


def _first_of_rest(spec: Weighted) -> int:
    """Behind x, weight, bias, the multiplier of integer weights, and the scales of groups."""
    return 3 + spec.scaled + (spec.group > 0)


def _rounding(lower: Callable[..., None]) -> Callable[..., None]:
    """What CPUs have no products of is rounded first, and multiplied as float32, which holds every such product."""

    def lowered(lowering: Lowering, var: relax.Var, call: relax.Call, spec: Weighted) -> None:
        if spec.activations in NARROW:
            read = list(call.args)
            read[0] = _rounded(lowering, read[0], spec.activations)
            if _rest(call, spec) and added_as(spec.activations) in NARROW:
                read[-1] = _rounded(lowering, read[-1], added_as(spec.activations))
            call, spec = relax.Call(call.op, read), replace(spec, reads="float32")
        lower(lowering, var, call, spec)

    return lowered


def _rounded(lowering: Lowering, x: relax.Expr, dtype: str) -> relax.Var:
    """A tensor of float32 that holds the numbers of x rounded to a narrower type."""
    storage = home(lowering, x)
    new = relax.Var(f"{getattr(x, 'name', 'constant')}~{dtype}", x.ty)
    lowering.home[new] = storage
    lowering.emit(new, round_to(dtype, storage, lowering.target), [lowering.place(x, storage)], storage, "round")
    return new


WEIGHTED: dict[type, Callable[..., None]] = {
    ops.Conv2d: _rounding(_conv2d),
    ops.ConvTranspose2d: _rounding(_conv_transpose2d),
    ops.Dense: _rounding(_dense),
}
