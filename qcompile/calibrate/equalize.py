"""How much to multiply each channel of a group by (see ``qcompile.passes.equalize_channels``), from statistics.

With scale ``s[c]`` for channel ``c`` of a tensor, rounding makes two errors in what the layers that read it compute.
Those of the codes of the tensor, whose step is that of its widest channel, and those of the weights ``V = W / s``,
whose step in each output channel is that of its largest weight::

    codes     (max_c s_c h_c - min_c s_c l_c)^2 / (12 255^2) * sum_oc V_oc^2
    weights   sum_oc (round(V_oc) - V_oc)^2 * E[x_c^2] s_c^2

l, h: range of a channel. The scales ``t`` of the least sum are found (see ``least_error``); with ``t^a`` for some a,
from 0, which changes nothing, to 3/4, the errors are measured, which decides. At 1 most channels would be equally wide,
and none had room for larger values than were seen.
Where there are rows of what a layer reads, the error of the codes is measured on them, which tells of values clipped.
Of several layers and samples the geometric mean counts, so that neither large numbers nor one odd sample decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from qcompile import graph
from qcompile.calibrate.channel_readers import (
    Passed,
    Reading,
    find_passed,
    find_readings,
    shared_steps,
    squares_by_number,
)
from qcompile.calibrate.channels import ChannelStats
from qcompile.calibrate.collect import calibrate
from qcompile.calibrate.data import CalibrationData, calibration_data
from qcompile.calibrate.executor import Executor, default_executor
from qcompile.calibrate.layer_inputs import LayerInputs, layer_inputs, weight_rows
from qcompile.calibrate.least_error import CodedTensor, least_error_scales
from qcompile.calibrate.scales import affine
from qcompile.calibrate.stats import TensorStats
from qcompile.model import Model
from qcompile.passes.base import array, refused
from qcompile.passes.equalize_channels import Group, find_groups
from qcompile.passes.group_weights import QMAX
from qcompile.reference.arithmetic import dequantize, quantize
from qcompile.scaled import scaled

EXPONENTS = (0.0, 0.25, 0.5, 0.75)
LARGEST = 2.0**8  # no channel is multiplied by more: what is nearly 0 on the samples may not be elsewhere
GAIN = 0.9  # of the error that may be left for a change to be worth it
SAMPLES = 64  # that are used at most: they are kept in memory
HELD_BACK = 4  # of so many samples, one is for judging


def equalize(model: Model, data: Any, num_samples: int | None = None, executor: Executor | None = None) -> Model:
    """The model with channels brought to similar magnitudes where that quantizes better; in float it means the same.

    data: as for ``calibrate``; executor: as for ``calibrate``, of the model as it is.
    A plan that is made of the result carries the scales, so it can be built with the model as it was as well. A model
    whose channels are scaled already comes back as it is.
    """
    if model.channel_scales:
        return model
    feeds = data if isinstance(data, CalibrationData) else calibration_data(data, model.inputs, num_samples)
    return scaled(model, learn_channel_scales(model, feeds, executor or default_executor(model)))


def learn_channel_scales(
    model: Model, data: Iterable[dict[str, np.ndarray]], run: Executor, group: int = 0
) -> dict[str, tuple[float, ...]]:
    """``channel_scales`` by magnitudes on some samples, judged on others; there should be 8 or more, 64 are used.

    A channel that is scaled up by what it was on few samples is clipped where it is larger; only samples that its
    magnitude was not taken from show that.
    """
    feeds = list(islice(data, SAMPLES))
    held = [feed for i, feed in enumerate(feeds) if i % HELD_BACK == HELD_BACK - 1]
    others = [feed for i, feed in enumerate(feeds) if i % HELD_BACK != HELD_BACK - 1]
    groups = find_groups(graph.read(model.module))
    if not held or not groups:
        return {}
    known = calibrate(model, others, "minmax", executor=run)
    layers = [layer for found in groups for _, layer in found.readers]
    inputs = layer_inputs(layers, run, held, len(held))
    return channel_scales(model, known.merge(calibrate(model, held, "minmax", executor=run)), known, inputs, group)


def channel_scales(
    model: Model,
    stats: TensorStats,
    known: TensorStats | None = None,
    inputs: Mapping[str, LayerInputs] | None = None,
    group: int = 0,
) -> dict[str, tuple[float, ...]]:
    """Group name -> its positive float32 numbers, for the groups that gain by it.

    stats: of all samples, which the numbers are made of. known: of those by which numbers are tried; None for all.
    inputs: rows of what layers read on others; of layers that have none, errors are what the formulas say.
    group: of int4 weights that share a scale; 0 for int8 weights.
    """
    result = {}
    for found in find_groups(graph.read(model.module)):
        readings = find_readings(found, known or stats, inputs or {}, group)
        if not readings:
            refused("channel_scales", f"{found.name}: no statistics of its channels")
            continue
        passed = find_passed(found, known or stats)
        wanted = _least_error(readings, passed, np.sqrt(_equal(found, [*readings, *passed])))
        exponent = _exponent(readings, passed, wanted)
        if exponent:
            wanted = _least_error(find_readings(found, stats, {}, group), find_passed(found, stats), wanted)
            result[found.name] = tuple(map(float, (wanted**exponent).astype(np.float32)))
    return result


def _equal(group: Group, tensors: Sequence[Reading | Passed]) -> np.ndarray:
    """(count,) float64: what makes the largest magnitude of every channel the same."""
    magnitude = np.zeros(group.count)
    for tensor in tensors:
        shared = tensor.index >= 0
        largest = np.maximum(np.abs(tensor.known.min), np.abs(tensor.known.max))
        np.maximum.at(magnitude, tensor.index[shared], largest[shared])
    most = float(magnitude.max(initial=0.0))
    return most / np.maximum(magnitude, most / LARGEST) if most else np.ones(group.count)


def _least_error(found: Sequence[Reading], passed: Sequence[Passed], start: np.ndarray) -> np.ndarray:
    """(count,) float64: what makes the errors of codes and weights least, by formulas."""
    weight = squares_by_number(found, start.size)
    coded = [CodedTensor(tensor.index, tensor.known.min, tensor.known.max, weight[tensor.index]) for tensor in passed]
    for reading in found:
        known = reading.known
        coded.append(CodedTensor(reading.index, known.min, known.max, reading.squares, shared_steps(reading)))
    return least_error_scales(coded, start, LARGEST)


def _exponent(found: Sequence[Reading], passed: Sequence[Passed], wanted: np.ndarray) -> float:
    """Of ``wanted``: the one of the least error, 0 for no change."""
    weight = squares_by_number(found, wanted.size)
    errors = np.log(np.stack([_errors(found, passed, weight, wanted**exponent) for exponent in EXPONENTS]))
    change = (errors - errors[0]).mean(axis=1)
    best = 0
    for i in range(1, len(EXPONENTS)):  # each leaves less room for larger values, so it has to gain over the last
        if change[i] <= change[best] + math.log(GAIN):
            best = i
    return EXPONENTS[best]


def _errors(found: Sequence[Reading], passed: Sequence[Passed], weight: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The errors of what each layer computes on each sample, and of what is on its way to the layers, which counts as
    if they read it (``weight``: see ``squares_by_number``), all in one row.
    """
    errors = [_error(reading, numbers) for reading in found]
    for tensor in passed:
        scale, squares = np.append(numbers, 1.0)[tensor.index], weight[tensor.index]
        errors.append(np.array([_step(tensor.known, scale) ** 2 / 12 * float((squares / scale**2).sum())]))
    return np.maximum(np.concatenate(errors), np.finfo(np.float64).tiny)


def _error(reading: Reading, numbers: np.ndarray) -> np.ndarray:
    """The mean squared error of what a layer computes on each sample, summed over its outputs."""
    known, scale = reading.known, np.append(numbers, 1.0)[reading.index]
    if reading.inputs is None:
        error = np.array([_step(known, scale) ** 2 / 12 * float((reading.squares / scale**2).sum())])
    else:
        error = _measured(reading, reading.inputs, scale)
    weight = reading.weight
    if weight is None:  # each input channel has an output channel, hence a scale of weights, of its own
        return error
    weight = weight / scale[None, :, None]
    levels, group, axes = (QMAX, reading.group, (2,)) if reading.group else (127, weight.shape[1], (2, 3))
    parts = weight.reshape(len(weight), -1, group, weight.shape[2])
    steps = np.maximum(np.abs(parts).max(axis=axes, keepdims=True), np.finfo(np.float32).tiny) / levels
    lost = np.square(np.rint(parts / steps) * steps - parts).reshape(weight.shape).sum(axis=(0, 2))
    return error + float((lost * known.mean_square * scale**2).sum())


def _measured(reading: Reading, inputs: LayerInputs, scale: np.ndarray) -> np.ndarray:
    """The part of the error that codes of what the layer reads make, on its rows; those out of range are clipped."""
    known, rows = reading.known, inputs.rows
    groups, _, length = rows.shape
    by_column = np.repeat(scale.reshape(groups, -1), length * groups // scale.size, axis=1)[:, None]
    q = affine(min(float((known.min * scale).min()), 0.0), max(float((known.max * scale).max()), 0.0))
    lost = dequantize(quantize(rows * by_column, q), q) / by_column - rows
    weight = weight_rows(reading.layer, array(reading.layer.weight)).swapaxes(1, 2)
    by_row = np.square(lost.astype(np.float32) @ weight).sum(axis=(0, 2))
    return np.bincount(inputs.sample, by_row) / np.maximum(np.bincount(inputs.sample), 1)


def _step(known: ChannelStats, scale: np.ndarray) -> float:
    """Of the codes of a tensor whose channels are scaled."""
    return (max(float((known.max * scale).max()), 0.0) - min(float((known.min * scale).min()), 0.0)) / 255
