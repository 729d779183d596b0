"""Measures the log of common shapes that comes with the package, and writes it.

make shipped-log            some 20 minutes on two idle cores; what is measured already is not measured again

The architectures are those of ``benchmarks.architectures``, in int8, for batch 1 and one thread. Of each
workload the fastest record is kept, with the note that its search is finished.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import onnx
from rich.console import Console

import qcompile as qc
from benchmarks.architectures import ARCHITECTURES
from qcompile.calibrate import random_data
from qcompile.tune.log import TuningLog
from qcompile.tune.merge import export, merge
from qcompile.tune.prune import prune
from qcompile.tune.run import tune
from qcompile.tune.session import TaskProgress
from qcompile.tune.tasks import TuningTask, merged, tasks_of

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "qcompile" / "tune" / "shipped"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.shipped_log", description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="native", help="the row that is measured, on a machine that can run it")
    parser.add_argument("--log", type=Path, default=Path("out/shipped.db"), help="keeps every trial")
    parser.add_argument("--formats", default="int8", help="as for qcompile tune")
    options = parser.parse_args()
    target = qc.select_target(options.target)
    out = Console()
    for name in ARCHITECTURES:  # one by one, since a layer's weights are as far away as its network is large
        tasks = _tasks(name, target, options.formats.split(","))
        outcome = tune(tasks, target, tuning_records=options.log, report=partial(_say, out, name))
        out.print(
            f"{name}: {len(tasks)} workloads, {outcome.trials} trials in {outcome.seconds:.0f} s", highlight=False
        )
    file = SHIPPED / f"{target.name.partition('+')[0]}.jsonl"
    SHIPPED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.db"
        merge([options.log], small)
        with TuningLog.open(small) as log:
            prune(log, keep=1)
        count = export(small, file)
    out.print(f"{count} records in {file.relative_to(ROOT)}", highlight=False)


def _tasks(name: str, target: qc.Target, formats: list[str]) -> list[TuningTask]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.onnx"
        onnx.save(ARCHITECTURES[name](), file)
        model = qc.import_onnx(file)
    stats = qc.calibrate(model, random_data(model.inputs, 1))
    return merged(tasks_of(model, qc.plan_uniform(model, stats, each, target), target) for each in formats)


def _say(out: Console, name: str, states: Sequence[TaskProgress], seconds: float) -> None:
    done, trials = sum(state.done for state in states), sum(state.trials for state in states)
    out.print(f"{name}: {done} of {len(states)} workloads, {trials} trials, {seconds:.0f} s", end="\r", highlight=False)


if __name__ == "__main__":
    main()
