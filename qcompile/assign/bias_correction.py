"""``correct_biases``: what rounding the weights shifts the mean of each output channel by, taken off the bias.

(Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.2.) A layer
computes ``y = W x + b``; with quantized weights ``W~`` the mean of channel ``o`` moves by ``(W~ - W)[o] . E[x]``. Few
weights a channel, as in a depthwise convolution, do not cancel each other's rounding errors, so the shift is large
there, and every pixel has it. ``E[x]`` is the mean of each input channel of the float model on the calibration data:
where every layer's outputs have their mean back, the next layer's inputs have theirs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from qcompile import graph
from qcompile.calibrate.stats import TensorStats
from qcompile.formats import format_of
from qcompile.model import Model
from qcompile.passes.base import array, op_name, refused, shape_of
from qcompile.passes.chain import CONV, CONV_TRANSPOSE, WEIGHTED, Chain, find_chains
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.passes.quantized import QuantizedConstant, constant_of
from qcompile.passes.weights import INT32_MAX, bias_scales, bias_vector, groups_of_scales, largest_sum
from qcompile.plan import QuantPlan, TensorPlan

_FLOAT = TensorPlan((1.0,), (0,), "float32", why="bias correction")  # of a layer that adds floats


def correct_biases(model: Model, stats: TensorStats, plan: QuantPlan) -> QuantPlan:
    """``plan`` with the correction of each layer of integer weights in "<layer>.bias", in place of what was there.

    Layers that cannot be corrected stay as they are; the log "qcompile.passes" says why.
    """
    bare = replace(plan, tensors={name: replace(tensor, shift=()) for name, tensor in plan.tensors.items()})
    quantized = {var.name: value for var, value in graph.read(insert_qdq(bare)(model.module)).bindings}
    tensors = dict(bare.tensors)
    for chain in find_chains(graph.read(model.module)):
        layer = plan.layers.get(chain.name)
        if chain.kind not in WEIGHTED or f"{chain.name}.weight" not in plan.tensors:
            continue
        if layer is None or not format_of(layer.format).integer_weights:
            continue
        weight = constant_of(quantized.get(f"{chain.name}.weight"))
        shift = _correction(chain, weight, stats)
        if not isinstance(shift, str):
            shift = _fitting(chain, weight, shift, plan) if layer.codes else shift.astype(np.float32)
        if isinstance(shift, str):
            refused("correct_biases", f"{chain.name}: {shift}")
        elif shift.any():
            name = f"{chain.name}.bias"
            bias = tensors.get(name) or (_no_bias(chain, plan) if layer.codes else _FLOAT)
            tensors[name] = replace(bias, shift=tuple(map(float, shift)))
    return replace(plan, tensors=tensors)


def mean_response(chain: Chain, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The mean (O,) of the outputs of a layer with this weight over all positions, for inputs (C,) of this mean.

    Zeros that pad the input enter no mean: a tap of a convolution counts by how often it meets the input.
    """
    if chain.kind == "dense":
        return mean @ weight
    if chain.kind == "scale":
        return weight.reshape(-1) * mean
    weight = weight * _use_of_taps(chain.call)
    groups = int(chain.call.attrs.groups)
    parts = weight.reshape(*weight.shape[:2], -1).sum(axis=2).reshape(groups, -1, weight.shape[1])
    inputs = mean.reshape(groups, -1)
    if op_name(chain.call) in CONV_TRANSPOSE:  # (groups, C / groups, O / groups)
        return np.einsum("gco,gc->go", parts, inputs).reshape(-1)
    return np.einsum("goc,gc->go", parts, inputs).reshape(-1)


def _use_of_taps(call: relax.Call) -> np.ndarray:
    """(kh, kw) or (k,): at what share of the output positions each tap of a kernel meets the input."""
    data, result, kernel = (shape_of(x)[2:] for x in (call.args[0], call, call.args[1]))
    attrs, rank = call.attrs, len(kernel)
    padding = [int(p) for p in attrs.padding][:rank]
    shares = np.ones(())
    for axis in range(rank):
        stride, dilation = int(attrs.strides[axis]), int(attrs.dilation[axis])
        fine, coarse = np.arange(data[axis]), np.arange(result[axis])
        if op_name(call) in CONV_TRANSPOSE:
            fine, coarse = coarse, fine
        taps = np.arange(kernel[axis]) * dilation - padding[axis]
        met = coarse[None, :] * stride + taps[:, None]
        share = ((met >= 0) & (met < fine.size)).sum(axis=1) / result[axis]
        shares = np.multiply.outer(shares, share)
    return shares


def _correction(chain: Chain, weight: QuantizedConstant | None, stats: TensorStats) -> np.ndarray | str:
    """What to add to each output channel, (O,) float64; or why nothing."""
    name = getattr(chain.inputs[0], "name", "")
    record = stats.records.get(name)
    if weight is None or array(chain.weight) is None:
        return "the weight is not a constant of codes"
    if record is None or record.channels is None:
        return f"no means of the channels of {name}"
    if chain.kind in ("conv", "conv_transpose") and op_name(chain.call) not in (*CONV, *CONV_TRANSPOSE):
        return f"no rule for {op_name(chain.call)}"
    axis = len(shape_of(chain.inputs[0])) - 1 if chain.kind == "dense" else 1
    if record.channels.axis != axis:
        return f"the means of {name} are along axis {record.channels.axis}, this layer's channels along {axis}"
    along = [1] * weight.codes.ndim
    along[weight.axis] = -1
    error = weight.codes * weight.scale.astype(np.float64).reshape(along) - array(chain.weight)
    return -mean_response(chain, error, record.channels.mean)


def _fitting(chain: Chain, weight: QuantizedConstant, shift: np.ndarray, plan: QuantPlan) -> np.ndarray | str:
    """The correction as float32, if the layer's sums stay within int32 with it."""
    x = plan.tensors[chain.inputs[0].name].affine
    codes = np.rint((bias_vector(chain) + shift) / bias_scales(chain, x, weight.scale))
    if not np.isfinite(codes).all() or np.abs(codes).max(initial=0) > INT32_MAX:
        return "the corrected bias is beyond int32"
    if largest_sum(weight, codes.astype(np.int64), groups_of_scales(chain)) > INT32_MAX:
        return "with the correction its sums may be beyond int32"
    return shift.astype(np.float32)


def _no_bias(chain: Chain, plan: QuantPlan) -> TensorPlan:
    """The plan of the bias of a layer that has none yet."""
    scale = np.array(plan.tensors[f"{chain.name}.weight"].scale, np.float32)
    scales = bias_scales(chain, plan.tensors[chain.inputs[0].name].affine, scale).astype(np.float32)
    return TensorPlan(
        tuple(map(float, scales)), (0,) * scales.size, "int32", 0, "derived", chain.inputs[0].name, "bias correction"
    )
