"""From the options about calibration to a plan, and its layers' schedules: what commands share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from qcompile.cli.console import remark, step
from qcompile.errors import QCompileError
from qcompile.formats import GROUP, format_of

if TYPE_CHECKING:
    from qcompile.calibrate import CalibrationData
    from qcompile.model import Model, TensorSpec
    from qcompile.plan import QuantPlan
    from qcompile.targets.cuda.rows import CudaTarget
    from qcompile.targets.target import Target


class Method(StrEnum):
    error = "error"
    auto = "auto"
    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


@dataclass(frozen=True, slots=True)
class CalibrationWish:
    """What the command line says of calibration.

    shapes_only: nothing but shapes and formats will be taken from a plan, so that noise does as well as data.
    """

    data: Path | None
    method: str
    percentile: float | None
    num_samples: int | None
    exclude: tuple[str, ...]
    integer_io: bool
    precision: str = "int8"
    group_size: int = GROUP
    equalize: bool = True
    rounding: bool = True
    bias_correction: bool = True
    shapes_only: bool = False


def uniform_plan(model: Model, target: Target | None, wish: CalibrationWish, times: dict[str, float]) -> QuantPlan:
    """Of ``wish.precision``; by the scales that a pre-quantized model brings, unless there is data to find others.

    Raises
    ------
    QCompileError: for a pre-quantized model that is to have other weights, without data.
    """
    import qcompile as qc
    from qcompile.assign.imported import brings_scales

    row = format_of(wish.precision)
    inputs = _float_names(model.inputs) if wish.integer_io and row.codes else []
    outputs = _float_names(model.outputs) if wish.integer_io and row.codes else []
    if wish.data is None and row.codes and brings_scales(model):
        if wish.precision != "int8":
            reason = f"a pre-quantized model keeps its int8 weights; {wish.precision} needs data"
            raise QCompileError(reason, remedy="give --calib-data")
        with timed("plan", times, "planning"):
            return qc.plan_imported(model, wish.exclude, inputs, outputs)
    _, plans = _learnt(model, target, (wish.precision,), wish, times, inputs, outputs)
    plan = plans[wish.precision]
    if wish.precision != "int8" and row.codes:
        _tell_fallbacks(plan)
    if plan.layers and all(layer.format != wish.precision for layer in plan.layers.values()):
        remark(f"note: no layer of this model can be {wish.precision}")
    return plan


def format_plans(
    model: Model,
    target: Target | CudaTarget,
    formats: Sequence[str],
    wish: CalibrationWish,
    times: dict[str, float],
) -> tuple[Model, dict[str, QuantPlan]]:
    """The plan of each format but fp32, of one calibration, and the model that they are of (equalized, if asked for).

    Raises QCompileError if nothing but fp32 is named.
    """
    wanted = [name for name in dict.fromkeys(formats) if format_of(name).name != "fp32"]
    if not wanted:
        raise QCompileError("nothing to compare fp32 with", node="--formats", remedy="give another format: int8")
    from qcompile.targets.target import Target as Cpu

    return _learnt(model, target if isinstance(target, Cpu) else None, wanted, wish, times)


def _learnt(
    model: Model,
    target: Target | None,
    precisions: Sequence[str],
    wish: CalibrationWish,
    times: dict[str, float],
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> tuple[Model, dict[str, QuantPlan]]:
    """Plans by data, and the model that they are of; noise, for want of data, decides on ranges only."""
    import qcompile as qc
    from qcompile.calibrate.methods import PERCENTILE

    learns = wish.data is not None
    steps = qc.Steps(wish.equalize and learns, wish.method, wish.rounding and learns, wish.bias_correction and learns)
    percent = PERCENTILE if wish.percentile is None else wish.percentile
    rows = [format_of(name) for name in precisions]
    data = calibration_feeds(model, wish) if learns or any(row.codes for row in rows) else None
    if data is None and any(row.integer_weights for row in rows):
        remark("note: without --calib-data weights take their nearest codes")
    with timed("calibrate", times, "calibrating") as update:
        how = (wish.exclude, inputs, outputs, steps, percent, wish.group_size)
        learnt = qc.quantize_formats(model, data, precisions, target, *how, progress=update)
    for note in data.notes if data is not None else ():
        remark(f"note: {note}")
    return learnt


def tune_plans(
    model: Model,
    plans: Iterable[QuantPlan],
    target: Target,
    records: Sequence[str],
    trials: int,
    times: dict[str, float],
) -> None:
    """Measures schedules of the layers of all these plans, as far as the logs lack them."""
    from qcompile.tune.run import tune
    from qcompile.tune.session import Budget
    from qcompile.tune.tasks import merged, tasks_of

    with timed("tune", times, "tuning") as update:
        tune(
            merged(tasks_of(model, plan, target) for plan in plans),
            target,
            tuning_records=list(records),
            budget=Budget(trials),
            report=lambda states, _: update(f"{sum(state.trials for state in states)} trials"),
        )


def _tell_fallbacks(plan: QuantPlan) -> None:
    """Which layers are int8 because they cannot be what was asked for."""
    names: dict[str, list[str]] = {}
    for name, layer in plan.layers.items():
        if layer.format == "int8" and layer.why:
            names.setdefault(layer.why, []).append(name)
    for why, layers in names.items():
        shown = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
        remark(f"note: {len(layers)} x int8: {why} ({shown})")


def calibration_feeds(model: Model, wish: CalibrationWish) -> CalibrationData:
    """The data that the wish names; noise, with a warning, if it names none."""
    from qcompile.calibrate import RANDOM_DATA_WARNING, calibration_data, random_data

    if wish.data is not None:
        return calibration_data(wish.data, model.inputs, wish.num_samples)
    if not wish.shapes_only:
        remark(RANDOM_DATA_WARNING)
    return calibration_data(list(random_data(model.inputs)), model.inputs, wish.num_samples)


def _float_names(specs: Sequence[TensorSpec]) -> list[str]:
    return [spec.name for spec in specs if spec.dtype == "float32"]


@contextlib.contextmanager
def timed(name: str, times: dict[str, float], text: str) -> Iterator[Callable[[str], None]]:
    start = time.perf_counter()
    with step(text) as update:
        yield update
    times[name] = time.perf_counter() - start
