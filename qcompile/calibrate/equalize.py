"""How much to multiply each channel of a group by (see ``qcompile.passes.equalize_channels``), from statistics.

With scale ``s[c]`` for channel ``c`` of a tensor, rounding makes two errors in what the layers that read it compute.
Those of the codes of the tensor, whose step is that of its widest channel, and those of the weights ``V = W / s``,
whose step in each output channel is that of its largest weight::

    codes     (max_c s_c h_c - min_c s_c l_c)^2 / (12 255^2) * sum_oc V_oc^2
    weights   sum_oc (round(V_oc) - V_oc)^2 * E[x_c^2] s_c^2

l, h: range of a channel. Scales ``(max r / r_c)^a``, with r the largest magnitude of a channel, are tried for some
exponents a between 0, which changes nothing, and 1, which makes all channels equally wide; the sum of both decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from qcompile import graph
from qcompile.calibrate.channels import ChannelStats
from qcompile.calibrate.collect import calibrate
from qcompile.calibrate.stats import TensorStats
from qcompile.model import Model
from qcompile.passes.base import array, op_name, refused
from qcompile.passes.chain import CONV_TRANSPOSE, Chain
from qcompile.passes.channels import channel_axis
from qcompile.passes.equalize_channels import Group, find_groups
from qcompile.scaled import scaled

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
LARGEST = 2.0**8  # no channel is multiplied by more: what is nearly 0 on the samples may not be elsewhere
GAIN = 0.9  # of the error that may be left for a change to be worth it
SAMPLES = 8  # that the ranges of channels are looked at on: they decide on scales, which any numbers may be


def equalize(model: Model, data: Any, num_samples: int = SAMPLES) -> Model:
    """The model with channels brought to similar magnitudes where that quantizes better; in float it means the same.

    data: as for ``calibrate``, of which ``num_samples`` are used. A plan that is made of the result carries the scales,
    so it can be built with the model as it was as well. A model whose channels are scaled already comes back as it is.
    """
    if model.channel_scales:
        return model
    return scaled(model, channel_scales(model, calibrate(model, data, "minmax", num_samples)))


def channel_scales(model: Model, stats: TensorStats) -> dict[str, tuple[float, ...]]:
    """Group name -> its positive float32 numbers, for the groups that gain by it."""
    result = {}
    for group in find_groups(graph.read(model.module)):
        found = [reading for var, layer in group.readers if (reading := _reading(group, var, layer, stats)) is not None]
        if not found:
            refused("channel_scales", f"{group.name}: no statistics of its channels")
            continue
        scale = _best(group, found)
        if scale is not None:
            result[group.name] = tuple(map(float, scale))
    return result


@dataclass(frozen=True, slots=True)
class _Reading:
    """A layer that reads channels of a group. index: for each of them which number, -1 for none."""

    layer: Chain
    index: np.ndarray
    known: ChannelStats


def _reading(group: Group, var: relax.Var, layer: Chain, stats: TensorStats) -> _Reading | None:
    axis = channel_axis(layer.call)
    index = group.by_channel(var, axis)
    record = stats.records.get(var.name)
    known = record.channels if record is not None else None
    if known is None or known.axis != axis or known.sum.size != index.size:
        return None
    return _Reading(layer, index, known)


def _best(group: Group, found: Sequence[_Reading]) -> np.ndarray | None:
    """The numbers (count,) float32 of the least error, None for no change."""
    magnitude = np.zeros(group.count)
    for reading in found:
        shared = reading.index >= 0
        largest = np.maximum(np.abs(reading.known.min), np.abs(reading.known.max))
        np.maximum.at(magnitude, reading.index[shared], largest[shared])
    if not magnitude.any():
        return None
    wanted = magnitude.max() / np.maximum(magnitude, magnitude.max() / LARGEST)
    errors = [sum(_error(reading, wanted**exponent) for reading in found) for exponent in EXPONENTS]
    best = int(np.argmin(errors))
    if errors[best] > GAIN * errors[0]:
        return None
    return (wanted ** EXPONENTS[best]).astype(np.float32)


def _error(reading: _Reading, numbers: np.ndarray) -> float:
    """The mean squared error of what a layer computes, summed over its outputs."""
    known, scale = reading.known, np.append(numbers, 1.0)[reading.index]
    step = (max(float((known.max * scale).max()), 0.0) - min(float((known.min * scale).min()), 0.0)) / 255
    weight = _by_input(reading.layer)
    if weight is None:  # each input channel has an output channel, hence a scale of weights, of its own
        squares = np.square(array(reading.layer.weight).astype(np.float64)).reshape(scale.size, -1).sum(axis=1)
        return step**2 / 12 * float((squares / scale**2).sum())
    weight = weight / scale[None, :, None]
    steps = np.maximum(np.abs(weight).max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny) / 127
    lost = np.square(np.rint(weight / steps) * steps - weight).sum(axis=(0, 2))
    return step**2 / 12 * float(np.square(weight).sum()) + float((lost * known.mean_square * scale**2).sum())


def _by_input(chain: Chain) -> np.ndarray | None:
    """The weight as (outputs, inputs, taps) float64; None for a depthwise convolution.

    Of other groups, inputs that an output does not read have weights 0.
    """
    weight = array(chain.weight).astype(np.float64)
    if chain.kind == "dense":
        return weight.T[:, :, None]
    groups = int(chain.call.attrs.groups)
    if op_name(chain.call) in CONV_TRANSPOSE:
        weight = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).swapaxes(1, 2)
    else:
        weight = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    count, outputs, inputs, taps = weight.shape
    if inputs == 1:
        return None
    full = np.zeros((count, outputs, count, inputs, taps))
    full[np.arange(count), :, np.arange(count)] = weight
    return full.reshape(count * outputs, count * inputs, taps)
