"""``simulate``: compiles the simulation of a model, once for all configurations."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qcompile.artifact import write_library
from qcompile.compile import compile_module
from qcompile.model import Model
from qcompile.passes.pipeline import run_passes
from qcompile.passes.runtime_calls import check_runtime_calls
from qcompile.plan import QuantPlan
from qcompile.scaled import model_for_all
from qcompile.simulate.form import simulation_form
from qcompile.simulate.kernels import read_kernels
from qcompile.simulate.lowering import lowering_passes, storages_of
from qcompile.simulate.simulation import DESCRIPTION, LIBRARY, WEIGHTS, Description, Simulation
from qcompile.simulate.variant import Space
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.select import can_run, select_row, select_target
from qcompile.targets.target import Target
from qcompile.tune.lookup import LoggedSchedules, open_logs


def simulate(
    model: Model,
    plans: Mapping[str, QuantPlan] | QuantPlan,
    target: str | Target | CudaTarget = "native",
    out: str | Path | None = None,
    tuning_records: str | Path | Sequence[str | Path] = "none",
) -> Simulation:
    """Compiles every layer in every format; which one is taken is said with each forward pass.

    model: as it was imported, or with the plans' channel scales.
    plans: by format, the plan with every layer in it that can be; or the one for "int8".
    target: whose kernels are used; for one that this machine cannot run, and a GPU, those of the native one, which give
    the same bits.
    out: folder for the library, its constants and description, for ``Simulation(folder)`` in other processes; a
    temporary one, gone with the simulation, if None.
    tuning_records: the logs that schedules are taken from, as for ``build``; layers then take the time that they take
    in a build.
    """
    wanted = select_row(target) if isinstance(target, str) else target
    row = wanted if isinstance(wanted, Target) and can_run(wanted) else select_target("native")
    plans = {"int8": plans} if isinstance(plans, QuantPlan) else plans
    model = model_for_all(model, plans.values())
    space = Space.of(model, plans)
    form = simulation_form(model, space)
    with open_logs(tuning_records) as logs:
        lowered = run_passes(form.module, lowering_passes(row, LoggedSchedules(logs, row), form.variants))
    kernels, constants, module = read_kernels(lowered)
    check_runtime_calls(module)
    place = Path(tempfile.mkdtemp(prefix="qcompile-simulation-") if out is None else out)
    with contextlib.ExitStack() as unless_done:
        if out is None:
            unless_done.callback(_remove, place)
        place.mkdir(parents=True, exist_ok=True)
        write_library(compile_module(module, row, quick=True), place / LIBRARY, row.triple)
        np.save(place / WEIGHTS, constants)
        description = Description(
            model.inputs,
            model.outputs,
            form.variants,
            {name: plan.to_json() for name, plan in space.plans.items()},
            space.reads,
            space.residuals,
            space.passive,
            kernels,
            storages_of(lowered),
        )
        (place / DESCRIPTION).write_bytes(pickle.dumps(description))
        simulation = Simulation(place)
        unless_done.pop_all()
    if out is None:
        weakref.finalize(simulation, _remove, place)
    return simulation


def _remove(place: Path) -> None:
    import shutil

    shutil.rmtree(place, ignore_errors=True)
