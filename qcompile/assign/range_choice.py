"""``narrow_ranges``: which part of a tensor's range its codes should cover, by the error in what layers compute of it.

A narrower range has finer codes, and clips what lies outside. Which is worse depends on the weights that read it: what
counts is ``E |(x~ - x) w|^2`` over all layers that read the tensor, measured on rows of what they read. Values far out
are rare, so it takes many rows to meet them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qcompile import graph
from qcompile.calibrate.layer_inputs import LayerInputs, weight_rows
from qcompile.calibrate.scales import affine
from qcompile.calibrate.stats import TensorStats
from qcompile.model import Model
from qcompile.passes.base import array
from qcompile.passes.chain import WEIGHTED, Chain, find_chains
from qcompile.plan import QuantPlan
from qcompile.reference.arithmetic import dequantize, quantize

PARTS = (0.9, 0.8, 0.7, 0.6, 0.5)  # of the range that are tried
GAIN = 0.9  # of the error that may be left for a narrower range to be worth it
OUTPUTS = 64  # of a layer; of more, as many random sums stand for all


def narrow_ranges(model: Model, stats: TensorStats, inputs: Mapping[str, LayerInputs], plan: QuantPlan) -> TensorStats:
    """``stats`` with narrower ranges of the tensors that gain by it; a plan of it by "minmax" has them.

    plan: made of ``stats`` by "minmax"; tensors that share a scale in it are narrowed together. inputs: rows of what
    layers read. A part of the range has to be better on each half of the samples.
    """
    sharing: dict[str, list[str]] = {}
    for name, tensor in plan.tensors.items():
        if tensor.kind in ("own", "shared") and name in stats.records:
            sharing.setdefault(tensor.source or name, []).append(name)
    readers: dict[str, list[Chain]] = {}
    for chain in find_chains(graph.read(model.module)):
        layer = plan.layers.get(chain.name)
        if chain.kind in WEIGHTED and layer is not None and layer.codes and chain.name in inputs:
            name = chain.inputs[0].name
            readers.setdefault(plan.tensors[name].source or name, []).append(chain)
    records = dict(stats.records)
    for root, names in sharing.items():
        if root not in readers:
            continue
        low = min(0.0, *(stats.records[name].min for name in names))
        high = max(0.0, *(stats.records[name].max for name in names))
        part = _part(low, high, [(inputs[chain.name], _few_outputs(chain)) for chain in readers[root]])
        for name in names:
            record = records[name]
            records[name] = replace(record, min=max(record.min, low * part), max=min(record.max, high * part))
    return TensorStats(records, stats.samples)


def _part(low: float, high: float, readers: list[tuple[LayerInputs, np.ndarray]]) -> float:
    """The part of a range with the least error, 1 if none is better by enough."""
    if low == high:
        return 1.0
    whole = _errors(low, high, readers)
    change = {part: (np.log(_errors(low * part, high * part, readers)) - np.log(whole)).mean(axis=0) for part in PARTS}
    best = min(change, key=lambda part: float(change[part].sum()))
    return best if (change[best] <= np.log(GAIN)).all() else 1.0


def _errors(low: float, high: float, readers: list[tuple[LayerInputs, np.ndarray]]) -> np.ndarray:
    """(readers, 2): the squared error of what each layer computes on either half of the samples."""
    q = affine(low, high)
    result = []
    for inputs, weight in readers:
        half = inputs.sample % 2
        lost = dequantize(quantize(inputs.rows, q), q) - inputs.rows
        by_row = np.square(lost @ weight).sum(axis=(0, 2), dtype=np.float64)
        result.append(np.bincount(half, by_row, 2) / np.maximum(np.bincount(half, minlength=2), 1))
    return np.maximum(np.array(result), np.finfo(np.float64).tiny)


def _few_outputs(chain: Chain) -> np.ndarray:
    """The weight as (groups, K, outputs), or sums of its outputs with random signs, whose mean square is theirs.

    (Johnson and Lindenstrauss; signs as in D. Achlioptas, Database-friendly random projections, 2003.)
    """
    weight = weight_rows(chain, array(chain.weight)).swapaxes(1, 2)
    outputs = weight.shape[2]
    if outputs <= OUTPUTS:
        return weight
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (outputs, OUTPUTS)).astype(np.float32)
    return weight @ (signs / np.float32(np.sqrt(OUTPUTS)))
