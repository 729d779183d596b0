"""``analyze``: the loss of each group of layers in each format, with what else assignment needs."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

from qcompile import graph
from qcompile.analyze.checkpoint import Checkpoint
from qcompile.analyze.configurations import Wish
from qcompile.analyze.costs import measured_costs, predicted_costs
from qcompile.analyze.data import evaluation_data
from qcompile.analyze.detect import choose_metric
from qcompile.analyze.measure import Groups, measure, measure_with, prepare, release
from qcompile.analyze.run import executor_of, measure_all
from qcompile.analyze.tabulate import Losses, tabulate
from qcompile.assign.structure import Structure
from qcompile.assign.table import FLOAT, SensitivityTable
from qcompile.assign.ties import Tie, find_ties
from qcompile.model import Model
from qcompile.plan import QuantPlan
from qcompile.simulate.simulate import simulate
from qcompile.simulate.simulation import Simulation
from qcompile.targets.select import can_run, select_target
from qcompile.targets.target import Target
from qcompile.tune.lookup import DEFAULT_RECORDS


def analyze(
    model: Model,
    plans: Mapping[str, QuantPlan] | QuantPlan,
    data: Any,
    target: str | Target = "native",
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
    plans: by format, the plan with every layer in it that can be; or the one for "int8".
    data: samples, as ``calibration_data`` takes them, read once; arrays that are no inputs are labels for the metric.
    target, threads, tuning_records: as for ``build``.
    measure_seconds: time every layer in each format, and casts, on this machine. For a target that it cannot run, for
    several threads, and if False, times are those of ``layer_costs``: from tuning logs, or predicted.
    metric: "kl", "mse" (relative squared error), "sqnr", "cosine", "top1", "perplexity" (the last two need labels),
    "module:function" or a function, see ``make_metric``; None: "kl" for models that choose between classes, else "mse".
    groups: layers that take one format together; those that ``find_ties`` finds if None.
    accumulate: measure each group together with all before it, too.
    probes: for a second-order score of each group, disturbances of its weights; 0 for none. Estimated forward alone, as
    Hutchinson's: ``tr H = E v'Hv`` over signs v, where ``v'Hv = (L(w + e v) - 2 L(w) + L(w - e v)) / e^2``. The loss L
    compares with fp32, so its Hessian is the Gauss-Newton matrix, and L(w) = 0.
    workers: processes. executor: runs the tasks instead; its workers must see the simulation's folder. Results do not
    depend on either.
    checkpoint: file that sums are kept in while it runs; resume: go on where an earlier run stopped.
    simulation: of this model and these plans, if there is one; seconds are those of its schedules.
    progress: called with the number of samples done.
    """
    plans = {"int8": plans} if isinstance(plans, QuantPlan) else dict(plans)
    formats = tuple(name for name in plans if name != FLOAT)
    row = (select_target(target) if isinstance(target, str) else target).with_threads(threads)
    chosen = choose_metric(model, metric)
    structure = Structure(graph.read(model.module))
    ties = find_ties(structure, plans) if groups is None else list(groups)
    samples = evaluation_data(data, model.inputs, num_samples).samples()
    first = next(samples)
    with tempfile.TemporaryDirectory(prefix="qcompile-analysis-") as folder:
        if simulation is None:
            host = row if can_run(row) else select_target("native")
            simulation = simulate(model, plans, host.with_threads(1), folder, tuning_records)
        wish = Wish({tie.name: tie.layers for tie in ties}, formats, accumulate, probes)
        task = Groups(str(simulation.folder), wish, chosen)
        kept = Checkpoint(Path(checkpoint), _fingerprint(model, plans, task), resume) if checkpoint else None
        finished = False
        try:
            with executor_of(workers, executor) as (pool, ahead):
                run = measure if pool is not None else partial(measure_with, prepare(simulation, wish))
                every = itertools.chain([first], samples)
                sums, count = measure_all(run, task, every, pool, ahead, kept, progress)
            finished = True
        finally:
            release()
            if kept is not None:
                kept.close(finished)
        losses = Losses(chosen, simulation, wish, sums)
        if measure_seconds and threads == 1 and can_run(row):
            costs = measured_costs(simulation, first.feed)
        else:
            others = {name: plans[name] for name in formats}
            costs = predicted_costs(model, others, structure, row, tuning_records)
        return tabulate(model, plans, structure, ties, losses, costs, row, count)


def _fingerprint(model: Model, plans: Mapping[str, QuantPlan], task: Groups) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    texts = [plan.to_json() for plan in plans.values()]
    for text in (model.source_sha256, task.wish.digest(), task.metric.name, *texts):
        hashed.update(text.encode())
    return hashed.hexdigest()
