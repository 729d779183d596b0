"""The composite of a layer with a weight: convolutions, dense, and scaling by channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import SupportsInt

import numpy as np
from tvm import relax

from qcompile import ops
from qcompile.formats import is_format
from qcompile.passes.base import array, constant, dtype_of, shape_of
from qcompile.passes.chain import Chain
from qcompile.passes.channels import unknown_layout
from qcompile.passes.composite import Composite, scale_by_channel, scaled_codes
from qcompile.passes.fold_layer import Folded, Layer
from qcompile.passes.group_weights import group_refusal, of_rows, rows_of, split_groups
from qcompile.passes.quantized import QuantizedConstant, constant_of, stored_of
from qcompile.passes.weights import INT32_MAX, bias_vector, groups_of_scales, largest_sum, out_channels, weight_axis
from qcompile.reference.arithmetic import multipliers


@dataclass(frozen=True, slots=True)
class Constants:
    """weight in the orientation that the specification asks for; scale (O,) float32, of integers; bias (O,).

    group_scale: (O, groups) uint8 beside an int4 weight, else None.
    """

    weight: np.ndarray
    scale: np.ndarray | None
    bias: np.ndarray
    group_scale: np.ndarray | None = None


_NO_GROUPS: Mapping[str, int] = MappingProxyType({})


def weighted(layer: Layer, groups: Mapping[str, int] = _NO_GROUPS) -> Folded | str:
    """Conv2d, ConvTranspose2d or Dense. groups: sizes of groups that share an integer scale, by layer."""
    group = groups.get(layer.chain.name, 0)
    constants = _integer_constants(layer, group) if layer.x is not None else _float_constants(layer, group)
    if isinstance(constants, str):
        return constants
    args = [layer.inputs[0].expr, constant(constants.weight, constants.weight.dtype.name)]
    args.append(constant(constants.bias, constants.bias.dtype.name))
    if layer.x is not None:
        args.append(constant(multipliers(layer.x, constants.scale, layer.out)))
    elif constants.scale is not None:
        args.append(constant(constants.scale))
    if constants.group_scale is not None:
        args.append(constant(constants.group_scale, "uint8"))
    if layer.residual is not None:
        args.append(layer.residual.expr)
    composite = Composite(args, layer.rounding)
    v = composite.emit(_product(layer, composite, constants))
    axis, ndim = (-1 if layer.chain.kind == "dense" else 1), len(shape_of(v))
    bias = composite.params[2]
    if layer.x is not None:
        bias_scale = relax.const((np.float64(layer.x.scale) * constants.scale).astype(np.float32))
        zeros = relax.const(np.zeros(constants.bias.size, np.int32))
        bias = composite.emit(relax.op.dequantize(bias, bias_scale, zeros, 0))
    if ndim > 1:
        bias = composite.emit(scale_by_channel(bias, ndim, axis))
    v = composite.emit(relax.op.add(v, bias))
    return Folded(_spec(layer, group, constants), composite, composite.finish(v, layer.epilogue))


def _integer_constants(layer: Layer, group: int) -> Constants | str:
    chain = layer.chain
    weight = constant_of(layer.definitions.get(chain.weight)) if isinstance(chain.weight, relax.Var) else None
    if weight is None or weight.codes.dtype != (np.int16 if group else np.int8):
        return f"the weight is not {'int16' if group else 'int8'}"
    scale = _scales(chain, weight)
    if isinstance(scale, str):
        return scale
    channels = out_channels(chain)
    bias = np.zeros(channels, np.int32)
    if chain.bias is not None:
        given = constant_of(layer.definitions.get(chain.bias)) if isinstance(chain.bias, relax.Var) else None
        if given is None or given.codes.dtype != np.int32:
            return "the bias is not int32"
        if not np.allclose(given.scale, layer.x.scale * scale.astype(np.float64), rtol=1e-5, atol=0):
            return "the bias does not have the scale of the sum"
        bias = np.broadcast_to(given.codes.reshape(-1), (channels,))
    if largest_sum(weight, bias, groups_of_scales(chain)) > INT32_MAX:
        return "its sums may exceed int32"
    return _codes(layer, weight.codes, scale, np.ascontiguousarray(bias), group)


def _codes(layer: Layer, codes: np.ndarray, scale: np.ndarray, bias: np.ndarray, group: int) -> Constants | str:
    """Constants of integer weights, taken apart into int4 and scales of groups if there are groups."""
    codes = _oriented(layer, codes)
    if not group:
        return Constants(codes, scale, bias)
    if (reason := group_refusal(layer.chain, group)) is not None:
        return reason
    parts = split_groups(rows_of(codes, 0), group)
    return parts if isinstance(parts, str) else Constants(of_rows(parts[0], codes.shape, 0), scale, bias, parts[1])


def _float_constants(layer: Layer, group: int) -> Constants | str:
    weight, chain = array(layer.chain.weight), layer.chain
    definition = layer.definitions.get(chain.weight) if isinstance(chain.weight, relax.Var) else None
    codes = constant_of(definition)
    if weight is None:
        weight = stored_of(definition) if codes is None else codes.codes
    stored = "int8" if weight is None or "int" in weight.dtype.name else weight.dtype.name
    if not is_format(layer.rounding, stored):
        return f"no format has {stored} weights beside activations in {layer.rounding}"
    if weight is None or (chain.bias is not None and array(chain.bias) is None):
        return "the weight is not a constant"
    if reason := unknown_layout(chain.call):
        return reason
    bias = np.ascontiguousarray(bias_vector(chain))
    if codes is None:
        return Constants(_oriented(layer, weight), None, bias)
    scaled = np.dtype(np.int16 if group else stored)
    if chain.kind == "scale" or weight.dtype != scaled:
        return f"the weight is not {'int16' if group else 'int8'}"
    scale = _scales(chain, codes)
    return scale if isinstance(scale, str) else _codes(layer, weight, scale, bias, group)


def _scales(chain: Chain, codes: QuantizedConstant) -> np.ndarray | str:
    """The scales (O,) of a weight in integers; or why there are no such."""
    if codes.zero_point.any():
        return "the weight is not symmetric"
    if codes.scale.size > 1 and codes.axis % codes.codes.ndim != weight_axis(chain):
        return "the weight's scales are not by output channel"
    scale = np.tile(codes.scale.reshape(-1), groups_of_scales(chain) if codes.scale.size > 1 else 1)
    return np.ascontiguousarray(np.broadcast_to(scale, (out_channels(chain),)))


def _oriented(layer: Layer, weight: np.ndarray) -> np.ndarray:
    chain = layer.chain
    if chain.kind == "dense":
        return np.ascontiguousarray(weight.T)
    if chain.kind == "scale":
        return weight.reshape(out_channels(chain), 1, *[1] * (len(shape_of(chain.out)) - 2))
    return weight


def _product(layer: Layer, composite: Composite, constants: Constants) -> relax.Call:
    """The anchor's operator on real numbers."""
    chain = layer.chain
    x, weight = composite.real(0, layer.x), composite.params[1]
    if constants.scale is not None:
        # Of a transposed convolution with groups the weight has O/groups output channels, with the same scales.
        axis = 1 if chain.kind == "conv_transpose" else 0
        scale = constants.scale[: constants.weight.shape[axis]]
        zeros = relax.const(np.zeros(scale.size, np.int8))
        if constants.group_scale is not None:
            weight = scaled_codes(composite, 1, 4)
            zeros = relax.const(np.zeros(scale.size, np.int16))
        weight = composite.emit(relax.op.dequantize(weight, relax.const(np.ascontiguousarray(scale)), zeros, axis))
    elif dtype_of(weight) != "float32":
        weight = composite.emit(relax.op.astype(weight, "float32"))
    if chain.kind == "dense":
        return relax.op.matmul(x, composite.emit(relax.op.permute_dims(weight)))
    if chain.kind == "scale":
        return relax.op.multiply(x, composite.emit(scale_by_channel(weight, len(shape_of(chain.out)), 1)))
    return relax.Call(chain.call.op, [x, weight], chain.call.attrs)


def _spec(layer: Layer, group: int, constants: Constants) -> ops.Spec:
    chain, attrs = layer.chain, layer.chain.call.attrs
    weights, reads = "int4" if group else constants.weight.dtype.name, layer.rounding
    if chain.kind == "dense":
        return ops.Dense(layer.x, layer.epilogue, group, weights, reads)
    if chain.kind == "scale":
        channels = out_channels(chain)
        return ops.Conv2d((1, 1), (0,) * 4, (1, 1), channels, layer.x, layer.epilogue, weights, reads=reads)
    strides, dilation = image_pair(attrs.strides, 1), image_pair(attrs.dilation, 1)
    padding, groups = image_padding(attrs.padding), int(attrs.groups)
    if chain.kind == "conv":
        return ops.Conv2d(strides, padding, dilation, groups, layer.x, layer.epilogue, weights, group, reads)
    more = image_pair(attrs.output_padding, 0)
    numbers = (strides, padding, more, dilation, groups)
    return ops.ConvTranspose2d(*numbers, layer.x, layer.epilogue, weights, reads=reads)


def image_pair(values: Iterable[SupportsInt], height: int) -> tuple[int, int]:
    """(height, width) of an attribute; a sequence has an image's height of 1, whose stride or such is ``height``."""
    numbers = tuple(int(v) for v in values)
    return numbers if len(numbers) == 2 else (height, numbers[0])


def image_padding(values: Iterable[SupportsInt]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right); a sequence has (left, right)."""
    numbers = tuple(int(v) for v in values)
    return numbers if len(numbers) == 4 else (0, numbers[0], 0, numbers[1])
