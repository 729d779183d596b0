"""Entry point: options common to all commands, exit codes, and errors as one line.

Exit codes: 0 done, 1 found a problem (or a defect of qcompile), 2 misused or unusable input, 130 interrupted (143 by
SIGTERM).
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, NoReturn

import typer

import qcompile
from qcompile.cli import analyze, assign, bench, build, debug, inspect, log, package, pareto, run, targets, tune
from qcompile.cli.console import error_line
from qcompile.errors import QCompileError
from qcompile.report.files import is_full

INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),  # --calib_data is --calib-data
        "max_content_width": 110,
    },
)
app.command("build")(build.build)
app.command("run")(run.run)
app.command("package")(package.package)
app.command("bench")(bench.bench)
app.command("inspect")(inspect.inspect)
app.command("debug")(debug.debug)
app.command("tune")(tune.tune)
app.command("analyze")(analyze.analyze)
app.command("assign")(assign.assign)
app.command("pareto")(pareto.pareto)
app.command("targets")(targets.targets)
app.add_typer(log.app, name="log")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Compile a float ONNX model into a fast, bit-exact low-precision library.

    \b
    Examples:
      qcompile build model.onnx --calib-data samples.npz -o out/
      qcompile tune model.onnx --time-budget 60s
      qcompile run out/ --inputs x.npz --outputs y.npz
      qcompile package out/ -o model.tar.gz
      qcompile bench out/ --model model.onnx --vs onnxruntime,openvino
      qcompile inspect out/ --layers
    """
    if version:
        typer.echo(f"qcompile {qcompile.__version__}")
        raise typer.Exit


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits; ``argv`` without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.exit(_run(arguments or ["--help"]))


def _run(arguments: list[str]) -> int:
    with _interrupts() as interrupted:
        code = _command(arguments, interrupted)
    if code == INTERRUPTED:
        error_line("interrupted; nothing was left half-written")
        return 128 + interrupted[0] if interrupted else code
    return code


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Remembers Ctrl-C and SIGTERM, at which folders that are temporary go as well: on its way through TVM's C++ a
    KeyboardInterrupt turns into a RuntimeError without words.
    """
    seen: list[int] = []

    def interrupt(signum: int, frame: object) -> None:
        seen.append(signum)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(arguments: list[str], interrupted: list[int]) -> int:
    try:
        code = app(arguments, prog_name="qcompile", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except QCompileError as error:
        error_line(str(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except OSError as error:
        if is_full(error):
            place = f"{error.filename}: its disk" if error.filename else "a disk"
            error_line(f"{place} is full; free some space (temporary files go to {tempfile.gettempdir()}, or TMPDIR)")
            return 2
        if error.filename is None:
            return _defect(error, arguments)
        error_line(f"{error.filename}: {error.strerror}")
        return 2
    except Exception as error:
        if interrupted:
            return INTERRUPTED
        if hasattr(error, "format_message"):  # a usage error of the parser
            return _misused(error)
        return _defect(error, arguments)


def _defect(error: Exception, arguments: Sequence[str]) -> int:
    if "-v" in arguments or "--verbose" in arguments:
        traceback.print_exception(error)
    first = (str(error).strip().splitlines() or [""])[0]
    error_line(f"{type(error).__name__}: {first}; this is a defect of qcompile (-v shows where)")
    return 1


def _misused(error: Exception) -> int:
    message = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "qcompile"
    error_line(f"{message.rstrip('.')}; see '{where} --help'")
    return 2
