"""``analyze``: the loss of each group of layers in each format, with what else assignment needs."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from qcompile import graph
from qcompile.analyze.checkpoint import Checkpoint
from qcompile.analyze.configurations import Wish
from qcompile.analyze.data import evaluation_data
from qcompile.analyze.detect import choose_metric
from qcompile.analyze.measure import Groups, measure, release
from qcompile.analyze.run import executor_of, measure_all
from qcompile.analyze.tabulate import Losses, tabulate
from qcompile.assign.structure import Structure
from qcompile.assign.table import FLOAT, SensitivityTable
from qcompile.assign.ties import Tie, find_ties
from qcompile.model import Model
from qcompile.plan import QuantPlan
from qcompile.simulate.simulate import simulate
from qcompile.simulate.simulation import Simulation
from qcompile.targets.select import select_target
from qcompile.targets.target import Target
from qcompile.tune.costs import layer_costs
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
    threads: int = 1,
    tuning_records: str | Path | Sequence[str | Path] = DEFAULT_RECORDS,
    progress: Callable[[int], None] = lambda samples: None,
) -> SensitivityTable:
    """Sensitivities of a model, measured by simulation: one compilation, however many configurations.

    Parameters
    ----------
    plans: by format, the plan with every layer in it that can be; or the one for "int8".
    data: samples, as ``calibration_data`` takes them, read once; arrays that are no inputs are labels for the metric.
    target, threads, tuning_records: where the seconds are from, as for ``build``.
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
    simulation: of this model and these plans, if there is one.
    progress: called with the number of samples done.
    """
    plans = {"int8": plans} if isinstance(plans, QuantPlan) else dict(plans)
    formats = tuple(name for name in plans if name != FLOAT)
    row = (select_target(target) if isinstance(target, str) else target).with_threads(threads)
    chosen = choose_metric(model, metric)
    structure = Structure(graph.read(model.module))
    ties = find_ties(structure, plans) if groups is None else list(groups)
    samples = evaluation_data(data, model.inputs, num_samples).samples()
    with tempfile.TemporaryDirectory(prefix="qcompile-analysis-") as folder:
        if simulation is None:
            simulation = simulate(model, plans, row.with_threads(1), out=folder)
        wish = Wish({tie.name: tie.layers for tie in ties}, formats, accumulate, probes)
        task = Groups(str(simulation.folder), wish, chosen)
        kept = Checkpoint(Path(checkpoint), _fingerprint(model, plans, task), resume) if checkpoint else None
        finished = False
        try:
            with executor_of(workers, executor) as (pool, ahead):
                sums, count = measure_all(measure, task, samples, pool, ahead, kept, progress)
            finished = True
        finally:
            release()
            if kept is not None:
                kept.close(finished)
        losses = Losses(chosen, simulation, wish, sums)
        costs = layer_costs(
            model,
            {FLOAT: QuantPlan(), **{name: plans[name] for name in formats}},
            row,
            threads=threads,
            tuning_records=tuning_records,
        )
        return tabulate(model, plans, structure, ties, losses, costs, row, count)


def _fingerprint(model: Model, plans: Mapping[str, QuantPlan], task: Groups) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for text in (
        model.source_sha256,
        task.wish.digest(),
        task.metric.name,
        *(plan.to_json() for plan in plans.values()),
    ):
        hashed.update(text.encode())
    return hashed.hexdigest()
