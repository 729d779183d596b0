"""What is refused before a model is imported: options that contradict each other, files that are not there.

All raise ``QCompileError``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qcompile.cli.planning import Method
from qcompile.errors import QCompileError, nearest
from qcompile.formats import FORMATS

if TYPE_CHECKING:
    from qcompile.plan import QuantPlan
    from qcompile.targets.cuda.rows import CudaTarget
    from qcompile.targets.target import Target

MIXED = "mixed"
PRECISIONS = (*FORMATS, MIXED)


def chosen_precision(precision: str, int8: bool, fp32: bool) -> str:
    """What these three options say together."""
    if precision not in PRECISIONS:
        raise QCompileError(
            f"unknown precision '{precision}'", node="--precision", remedy=nearest(precision, PRECISIONS)
        )
    if int8 and (fp32 or precision != "int8"):
        other = "fp32" if fp32 else precision
        raise QCompileError(f"--int8 and {other} contradict each other", remedy="give one precision")
    return "fp32" if fp32 else precision


def check_group_size(size: int | None, precision: str, plan: Path | None) -> None:
    grouped = precision == MIXED or FORMATS[precision].grouped
    if size is not None and (not grouped or plan is not None):
        raise QCompileError("only weights that are planned as int4 have groups", remedy="give --precision w4a8")
    if size is not None and (size < 8 or size % 8):
        raise QCompileError(f"--group-size {size} is not a multiple of 8", remedy="32 and 64 are usual")


def check_calibration(method: Method, percentile: float | None, *data: Path | None) -> None:
    """data: where samples are said to be."""
    if percentile is not None and method is not Method.percentile:
        reason = f"ranges are chosen by {method.value}"
        raise QCompileError(reason, node="--percentile", remedy="give --calib-method percentile, too")
    if percentile is not None and not 0 < percentile <= 100:
        raise QCompileError(f"{percentile:g} percent", node="--percentile", remedy="99.99 is usual")
    for path in data:
        if path is not None and not path.exists():
            raise QCompileError("no such file", node=str(path), remedy="check the path")


def check_integer_io(precision: str) -> None:
    if precision != MIXED and not FORMATS[precision].codes:
        reason = f"layers in {precision} read and write floats"
        raise QCompileError(reason, node="--integer-io", remedy="leave it out, or build int8")


def given_plan(path: Path, precision: str, data: Path | None, exclude: list[str] | None, integer_io: bool) -> QuantPlan:
    """The plan in a file; it says all that these options are about."""
    from qcompile.plan import QuantPlan

    options = {f"--precision {precision}": precision != "int8", "--calib-data": data is not None}
    options |= {"--exclude-nodes": bool(exclude), "--integer-io": integer_io}
    for option, given in options.items():
        if given:
            raise QCompileError(f"--plan and {option} contradict each other", remedy="give one of them")
    return QuantPlan.load(path)


def check_gpu(row: CudaTarget, precision: str, plan: Path | None, trials: int | None) -> None:
    """Options that need what GPUs do not have."""
    if trials is not None:
        raise QCompileError(
            f"a build for {row.name} does not search",
            node="--trials",
            remedy="run 'qcompile tune' where there is a GPU",
        )
    if plan is None:
        row.check(precision)


def check_schedules(
    records: list[str], locked: Path | None, trials: int | None, target: Target | CudaTarget
) -> list[str]:
    """What ``--tuning-records`` names."""
    from qcompile.tune.locked import LockedSchedules, load_manifest
    from qcompile.tune.lookup import DEFAULT_RECORDS, log_files, open_logs
    from qcompile.tune.run import logs_to_tune

    if locked is not None:
        for option, given in (("--tuning-records", records), ("--trials", trials)):
            if given:
                raise QCompileError(f"--locked and {option} contradict each other", remedy="give one of them")
        LockedSchedules(load_manifest(locked), target)
    named = records or [DEFAULT_RECORDS]
    with open_logs(log_files(named) if trials is None else logs_to_tune(named)[1:]):  # the first may yet be made
        return named
