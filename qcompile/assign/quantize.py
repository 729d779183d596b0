"""``quantize``: from a float model and data to a plan, by every step towards accuracy that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompile import graph
from qcompile.assign.bias_correction import correct_biases
from qcompile.assign.range_choice import narrow_ranges
from qcompile.assign.rounding import learn_rounding
from qcompile.assign.uniform import plan_uniform
from qcompile.calibrate.collect import calibrate
from qcompile.calibrate.data import CalibrationData, calibration_data
from qcompile.calibrate.equalize import learn_channel_scales
from qcompile.calibrate.executor import Executor, default_executor, scaled_executor
from qcompile.calibrate.layer_inputs import LayerInputs, layer_inputs
from qcompile.calibrate.methods import PERCENTILE
from qcompile.calibrate.stats import TensorStats
from qcompile.errors import QCompileError
from qcompile.formats import GROUP, format_of
from qcompile.model import Model
from qcompile.passes.chain import WEIGHTED, find_chains
from qcompile.plan import QuantPlan
from qcompile.scaled import scaled

if TYPE_CHECKING:
    from qcompile.targets.target import Target

BY_ERROR = "error"  # how ranges are chosen


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done for accuracy, in this order; what is not about codes goes for every format of integer weights.

    equalize: channels are brought to similar magnitudes (``qcompile.calibrate.equalize``).
    ranges: how the range of a tensor of codes is chosen: by the error that it leaves in what layers compute ("error",
    see ``narrow_ranges``), or by a method of ``qcompile.calibrate.methods``.
    rounding: codes of weights learn from data (``learn_rounding``).
    bias_correction: biases make up for what shifts the means of layers (``correct_biases``).
    """

    equalize: bool = True
    ranges: str = BY_ERROR
    rounding: bool = True
    bias_correction: bool = True


def quantize(
    model: Model, data: Any, precision: str = "int8", target: Target | None = None, **options: Any
) -> QuantPlan:
    """A plan of ``model`` in one precision; options are those of ``quantize_formats``."""
    return quantize_formats(model, data, (precision,), target, **options)[1][precision]


def quantize_formats(
    model: Model,
    data: Any,
    precisions: Sequence[str],
    target: Target | None = None,
    exclude: Sequence[str] = (),
    integer_inputs: Sequence[str] = (),
    integer_outputs: Sequence[str] = (),
    steps: Steps | None = None,
    percent: float = PERCENTILE,
    group_size: int = GROUP,
    num_samples: int | None = None,
    progress: Callable[[str], None] = lambda what: None,
    executor: Executor | None = None,
) -> tuple[Model, dict[str, QuantPlan]]:
    """The plans of several precisions, and the model that all are of: one equalization, one compilation.

    data: as for ``calibrate``; read several times, so what can be read only once is kept in memory. None for formats
    that compute on floats: then nothing is learnt, and weights have their nearest codes.
    steps: None for the default of each. progress: called with a few words on what is going on. executor: as for
    ``calibrate``. Others as for ``plan_uniform``.
    """
    steps = steps or Steps()
    rows = {name: format_of(name) for name in precisions}
    codes, learning = any(row.codes for row in rows.values()), any(row.integer_weights for row in rows.values())
    method = "minmax" if steps.ranges == BY_ERROR else steps.ranges

    def planned(model: Model, stats: TensorStats | None, name: str) -> QuantPlan:
        ends = (target, exclude, integer_inputs, integer_outputs)
        return plan_uniform(model, stats, name, *ends, method, percent, group_size, bias_correction=False)

    if data is None and codes:
        raise QCompileError(f"{', '.join(precisions)} without calibration data", remedy="give samples of real inputs")
    if data is None or not learning:
        return model, {name: planned(model, None, name) for name in precisions}
    feeds = data if isinstance(data, CalibrationData) else calibration_data(data, model.inputs, num_samples)
    if not isinstance(data, (str, Path, list, tuple, dict, CalibrationData)):
        feeds = calibration_data(list(feeds), model.inputs)
    if executor is None:
        progress("compiling the float model")
    run = executor or default_executor(model)

    def count(what: str) -> Callable[[int], None]:
        return lambda done: progress(f"{what}, {done}")

    if steps.equalize and not model.channel_scales:
        progress("magnitudes of channels")
        grouped = all(row.grouped for row in rows.values())
        scales = learn_channel_scales(model, feeds, run, group_size if grouped else 0)
        run, model = scaled_executor(run, model, scales), scaled(model, scales)
    stats = calibrate(model, feeds, method, executor=run, progress=count("ranges"))
    inputs: dict[str, LayerInputs] = {}
    if steps.rounding or (steps.ranges == BY_ERROR and codes):
        progress("inputs of layers")
        chains = [chain for chain in find_chains(graph.read(model.module)) if chain.kind in WEIGHTED]
        inputs = layer_inputs(chains, run, feeds, -(-stats.samples // feeds.batch))
    plans = {}
    for name, row in rows.items():
        plan = planned(model, stats, name)
        if steps.ranges == BY_ERROR and row.codes:
            plan = replace(planned(model, narrow_ranges(model, stats, inputs, plan), name), method=BY_ERROR)
        if steps.rounding and row.integer_weights:
            plan = learn_rounding(model, inputs, plan, steps.bias_correction, count("codes of layers"))
        corrects = steps.bias_correction and row.integer_weights
        plans[name] = correct_biases(model, stats, plan) if corrects else plan
    return model, plans
