"""``qcompile log``: look into tuning logs, put them together, carry them as text, make them small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.cli.console import remark, show, show_json, step
from qcompile.cli.options import OUT

if TYPE_CHECKING:
    from qcompile.tune.record import Task

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Log = Annotated[Path | None, typer.Argument(metavar="DB", help="A tuning log; your own if not given.")]
Row = Annotated[str | None, typer.Option("--target", help="What is used for this target; see 'qcompile targets'.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of defects.")]


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    """Show, merge, export and prune tuning logs.

    A log holds every trial of the auto-tuner; a build uses what fits. Yours is ~/.local/share/qcompile/tuning.db, or
    below XDG_DATA_HOME.

    \b
    Examples:
      qcompile log show
      qcompile log merge a.db b.db records.jsonl -o all.db
      qcompile log export all.db -o records.jsonl
      qcompile log prune all.db --keep 1
    """
    if context.invoked_subcommand is None:
        show(context.get_help())


@app.command("show")
def show_log(log: Log = None, target: Row = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Show what a log knows, layer by layer.

    One row for each CPU that measured a layer. "vs first" is the speed of the best trial by that of the first,
    with which the search began.

    \b
    Examples:
      qcompile log show
      qcompile log show board.db --target x86-vnni
      qcompile log show records.jsonl --json
    """
    from qcompile.report import units
    from qcompile.report.tuning_log import log_json, log_rows, log_table
    from qcompile.tune.log import TuningLog

    path = _own(log)
    wanted = _used_by(target)
    with step(f"reading {path}"), TuningLog.open(path, read_only=True) as opened:
        rows = log_rows(opened, wanted)
    trials, failed = sum(row.trials for row in rows), sum(row.failed for row in rows)
    if as_json:
        show_json({"log": str(path), "records": trials, "failed": failed, "tasks": [log_json(row) for row in rows]})
        return
    layers = len({(row.task.workload, row.task.batch) for row in rows})
    show(f"log        {path} ({units.size(path.stat().st_size)})")
    show(f"records    {trials} of {layers} layer{'s' * (layers != 1)}" + (f"; {failed} failed" if failed else ""))
    if rows:
        show(log_table(rows))


@app.command("merge")
def merge_logs(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Logs, and exported files.")],
    out: Annotated[Path, typer.Option(*OUT, help="The log that takes them all; a new one or one that is there.")],
    verbose: Verbose = False,
) -> None:
    """Add the records of logs to another one.

    Those that it has already are not added again.

    \b
    Examples:
      qcompile log merge board1.db board2.db -o all.db
    """
    _merge(logs, out)


@app.command("export")
def export_log(
    log: Log = None,
    out: Annotated[str, typer.Option(*OUT, help="File to write, or - for the terminal.")] = "-",
    verbose: Verbose = False,
) -> None:
    """Write a log as text, one JSON object a line.

    To read, to compare, to keep beside the code. Such a file can stand wherever a log is read.

    \b
    Examples:
      qcompile log export -o records.jsonl
      qcompile log export all.db | grep depthwise
    """
    from qcompile.tune import log_file
    from qcompile.tune.log import TuningLog
    from qcompile.tune.merge import export

    path = _own(log)
    if out == "-":
        with TuningLog.open(path, read_only=True) as opened:
            show("".join(log_file.lines(opened.items())).rstrip("\n"))
        return
    with step(f"writing {out}"):
        count = export(path, Path(out))
    remark(f"{out}: {count} record{'s' * (count != 1)}")


@app.command("import")
def import_log(
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="A file written by 'qcompile log export'.")],
    log: Log = None,
    verbose: Verbose = False,
) -> None:
    """Add the records of an exported file to a log.

    All or none; importing a file again adds nothing.

    \b
    Examples:
      qcompile log import records.jsonl
      qcompile log import records.jsonl new.db
    """
    _merge([records], _own(log))


@app.command("prune")
def prune_log(
    log: Log = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Fastest records to keep of each layer on each CPU.")] = 5,
    target: Row = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    verbose: Verbose = False,
) -> None:
    """Drop records that decide nothing.

    Failed trials, all but the fastest, those of older schedule templates; with --target also whatever is of no
    use for that target. What was searched to the end stays so.

    \b
    Examples:
      qcompile log prune --dry-run
      qcompile log prune shipped.db --keep 1 --target x86-vnni
    """
    from qcompile.tune.log import TuningLog
    from qcompile.tune.prune import prune

    path = _own(log)
    used = None if target is None else _used_by(target)
    with step(f"pruning {path}"), TuningLog.open(path, create=False) as opened:
        before = len(opened)
        dropped = prune(opened, keep, used, dry_run)
    reasons = {
        "instructions": "for other targets",
        "template": "of older templates",
        "failed": "failed",
        "slower": "slower than others",
    }
    parts = [f"{count} {reasons[reason]}" for reason, count in dropped.items() if count]
    detail = f" ({', '.join(parts)})" if parts else ""
    verb = "would go" if dry_run else "dropped"
    show(f"{path}: {sum(dropped.values())} of {before} records {verb}{detail}")


def _merge(sources: list[Path], out: Path) -> None:
    from qcompile.tune.merge import merge

    with step(f"writing {out}"):
        count, added = merge(sources, out)
    show(f"{out}: {added} of {count} record{'s' * (count != 1)} added")


def _own(log: Path | None) -> Path:
    from qcompile.tune.locations import default_log

    return default_log() if log is None else log


def _used_by(target: str | None) -> Callable[[Task], bool]:
    """Whether a build for a target could use the records of a task."""
    if target is None:
        return lambda task: True
    from qcompile.targets.cuda.rows import CudaTarget
    from qcompile.targets.select import select_row

    row = select_row(target)  # before the compiler is loaded
    rows = row.each() if isinstance(row, CudaTarget) else (row,)
    from qcompile.targets.kernels.templates import instructions
    from qcompile.targets.kernels.workload import Workload

    def used(task: Task) -> bool:
        try:
            workload = Workload.from_key(task.workload, task.batch)
            return any(instructions(workload, row) == task.instructions for row in rows)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return False

    return used
