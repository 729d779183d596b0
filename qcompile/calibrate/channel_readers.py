"""Who reads the channels of a group, and what is known of them: ranges, weights, rows that were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.calibrate.channels import ChannelStats
from qcompile.calibrate.layer_inputs import LayerInputs
from qcompile.calibrate.least_error import Weights
from qcompile.calibrate.stats import TensorStats
from qcompile.passes.base import array, op_name
from qcompile.passes.chain import CONV_TRANSPOSE, Chain
from qcompile.passes.channels import channel_axis
from qcompile.passes.equalize_channels import Group
from qcompile.passes.group_weights import QMAX, fitting_group, group_refusal

ROWS = 1024  # of a layer's inputs that errors are measured on
WEIGHT_ROWS = 256  # of a layer's weights at most that errors are taken on by formula


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A layer that reads channels of a group. index: for each of them which number, -1 for none.

    weight: by channel, see ``_by_input``. squares: (channels,) of the weights of each. group: of int4 weights.
    """

    layer: Chain
    index: np.ndarray
    known: ChannelStats
    inputs: LayerInputs | None
    weight: np.ndarray | None
    squares: np.ndarray
    group: int


def find_readings(found: Group, stats: TensorStats, inputs: Mapping[str, LayerInputs], group: int) -> list[Reading]:
    """The readers of a group whose channels are known."""
    result = []
    for var, layer in found.readers:
        axis = channel_axis(layer.call)
        index = found.by_channel(var, axis)
        record = stats.records.get(var.name)
        known = record.channels if record is not None else None
        if known is None or known.axis != axis or known.sum.size != index.size:
            continue
        rows = inputs.get(layer.name)
        if rows is not None:
            some = slice(None, None, -(-rows.rows.shape[1] // ROWS))
            rows = LayerInputs(rows.rows[:, some], rows.sample[some])
        part = fitting_group(layer, group) if group else 0
        part = part if part and group_refusal(layer, part) is None else 0
        weight = _by_input(layer)
        result.append(Reading(layer, index, known, rows, weight, _squares(layer, weight, index.size), part))
    return result


@dataclass(frozen=True, slots=True)
class Passed:
    """A tensor that is stored as codes on its way to the layers that read its channels."""

    index: np.ndarray
    known: ChannelStats


def find_passed(group: Group, stats: TensorStats) -> list[Passed]:
    """The tensors of a group that no layer reads and whose channels are known."""
    read = {var for var, _ in group.readers}
    result = []
    for var in group.index:
        record = stats.records.get(var.name)
        if var in read or record is None or record.channels is None:
            continue
        index = group.by_channel(var, record.channels.axis)
        if index.size == record.channels.sum.size:
            result.append(Passed(index, record.channels))
    return result


def squares_by_number(found: Sequence[Reading], count: int) -> np.ndarray:
    """(count + 1,): of an error of each channel, the squares of the weights that read it; 0 for those of no number."""
    weight = np.zeros(count + 1)
    for reading in found:
        np.add.at(weight, reading.index, reading.squares)
    weight[-1] = 0
    return weight


def shared_steps(reading: Reading) -> Weights | None:
    """The weights of a layer that share steps; None where each input channel's have a step of their own."""
    weight = reading.weight
    if weight is None:
        return None
    outputs, inputs, taps = np.abs(weight).shape
    mean_square = reading.known.mean_square
    if reading.group:
        magnitude = np.abs(weight).reshape(outputs, -1, reading.group, taps).transpose(1, 0, 3, 2)
        magnitude = magnitude.reshape(len(magnitude), -1, reading.group)
    else:
        parts = int(reading.layer.call.attrs.groups) if reading.layer.kind != "dense" else 1
        full = np.abs(weight).max(axis=2).reshape(parts, outputs // parts, parts, inputs // parts)
        magnitude, mean_square = full[np.arange(parts), :, np.arange(parts)], mean_square * taps
    rows = magnitude.shape[1]
    magnitude = magnitude[:, :: -(-rows // WEIGHT_ROWS)]
    return Weights(magnitude, QMAX if reading.group else 127, mean_square * (rows / magnitude.shape[1]))


def _squares(layer: Chain, weight: np.ndarray | None, channels: int) -> np.ndarray:
    if weight is None:
        return np.square(array(layer.weight).astype(np.float64)).reshape(channels, -1).sum(axis=1)
    return np.square(weight).sum(axis=(0, 2))


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
