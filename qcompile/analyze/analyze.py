"""``analyze``: the loss of each group of layers in each format, with what else assignment needs."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from qcompile import __version__, graph
from qcompile.analyze.checkpoint import Checkpoint
from qcompile.analyze.configurations import Wish
from qcompile.analyze.costs import measured_costs, predicted_costs
from qcompile.analyze.data import EvaluationData, Sample, evaluation_data
from qcompile.analyze.detect import choose_metric
from qcompile.analyze.gpu_costs import gpu_costs
from qcompile.analyze.kept import closing, kept_simulation, simulation_folder
from qcompile.analyze.measure import Groups, measure, measure_with, prepare, release
from qcompile.analyze.run import executor_of, measure_all
from qcompile.analyze.tabulate import Losses, tabulate
from qcompile.assign.structure import Structure
from qcompile.assign.table import FLOAT, SensitivityTable
from qcompile.assign.ties import Tie, find_ties
from qcompile.model import Model
from qcompile.plan import QuantPlan
from qcompile.scaled import model_for_all
from qcompile.simulate.simulate import simulate
from qcompile.simulate.simulation import Simulation
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.select import can_run, select_row
from qcompile.targets.target import Target
from qcompile.tune.lookup import DEFAULT_RECORDS


def analyze(
    model: Model,
    plans: Mapping[str, QuantPlan] | QuantPlan,
    data: Any,
    target: str | Target | CudaTarget = "native",
    *,
    metric: str | Callable[..., Any] | None = None,
    num_samples: int | None = None,
    groups: Sequence[Tie] | None = None,
    accumulate: bool = True,
    probes: int = 0,
    workers: int = 1,
    executor: Executor | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    simulation: Simulation | None = None,
    measure_seconds: bool = True,
    threads: int = 1,
    tuning_records: str | Path | Sequence[str | Path] = DEFAULT_RECORDS,
    progress: Callable[[int], None] = lambda samples: None,
) -> SensitivityTable:
    """Sensitivities of a model, measured by simulation: one compilation, however many configurations.

    Parameters
    ----------
    model: as it was imported, or with the plans' channel scales.
    plans: by format, the plan with every layer in it that can be; or the one for "int8".
    data: samples, as ``calibration_data`` takes them, read once; arrays that are no inputs are labels for the metric.
    target, threads, tuning_records: as for ``build``.
    measure_seconds: time every layer in each format, and casts, on this machine. For a target that it cannot run, for
    several threads, and if False, times are those of ``layer_costs``: from tuning logs, or predicted; for a GPU, which
    losses are simulated of on this machine's CPU, those of ``gpu_costs``, likewise.
    metric: "kl", "mse" (relative squared error), "sqnr", "cosine", "top1", "perplexity" (the last two need labels),
    "module:function" or a function, see ``make_metric``; None: "kl" for models that choose between classes, else "mse".
    groups: layers that take one format together; those that ``find_ties`` finds if None.
    accumulate: measure each group together with all before it, too.
    probes: for a second-order score of each group, disturbances of its weights; 0 for none. Estimated forward alone, as
    Hutchinson's: ``tr H = E v'Hv`` over signs v, where ``v'Hv = (L(w + e v) - 2 L(w) + L(w - e v)) / e^2``. The loss L
    compares with fp32, so its Hessian is the Gauss-Newton matrix, and L(w) = 0.
    workers: processes. executor: runs the tasks instead; its workers must see the simulation's folder. Results do not
    depend on either.
    checkpoint: file that sums are kept in while it runs, with the simulation beside it; resume: go on where an earlier
    run stopped.
    simulation: of this model and these plans, if there is one; seconds are those of its schedules.
    progress: called with the number of samples done.
    """
    plans = {"int8": plans} if isinstance(plans, QuantPlan) else dict(plans)
    model = model_for_all(model, plans.values())
    formats = tuple(name for name in plans if name != FLOAT)
    row = (select_row(target) if isinstance(target, str) else target).with_threads(threads)
    chosen = choose_metric(model, metric)
    structure = Structure(graph.read(model.module))
    ties = find_ties(structure, plans) if groups is None else list(groups)
    evaluation = evaluation_data(data, model.inputs, num_samples)
    evaluation.check_rows(model.outputs, chosen.own)
    seen: list[str] = []
    samples = _noted(evaluation, seen)
    first = next(samples)
    wish = Wish({tie.name: tie.layers for tie in ties}, formats, accumulate, probes)
    where = Path(checkpoint) if checkpoint is not None else None
    kept = Checkpoint(where, _key(model, plans, wish.digest(), chosen.name), resume) if where is not None else None
    with simulation_folder(where) as folder, closing(kept):
        if simulation is None:
            simulation = kept_simulation(
                folder,
                _key(model, plans, row.name, __version__),
                resume,
                lambda: simulate(model, plans, row.with_threads(1), folder, tuning_records),
            )
        try:
            with executor_of(workers, executor) as (pool, ahead):
                run = measure if pool is not None else partial(measure_with, prepare(simulation, wish))
                task = Groups(str(simulation.folder), wish, chosen)
                every = itertools.chain([first], samples)
                sums, count = measure_all(run, task, every, pool, ahead, kept, progress)
        finally:
            release()
        losses = Losses(chosen, simulation, wish, sums)
        if isinstance(row, CudaTarget):
            costs = gpu_costs(model, {name: plans[name] for name in formats}, structure, row, tuning_records)
        elif measure_seconds and threads == 1 and can_run(row):
            costs = measured_costs(simulation, first.feed)
        else:
            others = {name: plans[name] for name in formats}
            costs = predicted_costs(model, others, structure, row, tuning_records)
        table = tabulate(model, plans, structure, ties, losses, costs, row, count)
        return replace(table, notes=(*model.notes, *evaluation.notes), seen=tuple(seen))


def _noted(data: EvaluationData, seen: list[str]) -> Iterator[Sample]:
    """The samples, whose digests are added to ``seen``."""
    for sample in data.samples():
        seen += data.digests(sample)
        yield sample


def _key(model: Model, plans: Mapping[str, QuantPlan], *others: str) -> str:
    """What something is of, as a hash."""
    hashed = hashlib.blake2b(digest_size=16)
    for text in (model.source_sha256, *others, *(plan.to_json() for plan in plans.values())):
        hashed.update(text.encode())
    return hashed.hexdigest()
