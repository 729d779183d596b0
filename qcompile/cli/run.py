"""``qcompile run``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from qcompile.cli.boards import RpcKey, RpcServer, RpcTracker, board_of
from qcompile.cli.console import remark, show, show_json, step

if TYPE_CHECKING:
    from qcompile.cli.feeds import Feed
    from qcompile.rpc.places import Place
    from qcompile.rpc.runner import RemoteRunner
    from qcompile.runtime import CudaRunner, Runner
    from qcompile.runtime.emulate import Emulator


def run(
    path: Annotated[Path, typer.Argument(help="The artifact folder.")],
    inputs: Annotated[
        Path | None, typer.Option("-i", "--inputs", help=".npz by input name; noise if not given.")
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option("-o", "--outputs", help="Where to write an .npz by output name.")
    ] = None,
    print_top: Annotated[int, typer.Option("--print-top", min=0, help="Print the N largest values and where.")] = 0,
    profile: Annotated[bool, typer.Option("--profile", help="Print where the time of a call goes.")] = False,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Run it in a process of its own, under QEMU if built for another machine.")
    ] = False,
    rpc: RpcServer = None,
    rpc_tracker: RpcTracker = None,
    rpc_key: RpcKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="The profile for machines.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of defects.")] = False,
) -> None:
    """Run a built model on arrays.

    Their first axis may hold more samples than the model takes at once.

    \b
    Examples:
      qcompile run out/ --inputs x.npz --outputs y.npz
      qcompile run out/ --inputs x.npz --print-top 5
      qcompile run out/ --profile
      qcompile run out-arm/ --inputs x.npz --emulate
      qcompile run out-arm/ --inputs x.npz --rpc 10.0.0.5:9090
    """
    from qcompile.cli.feeds import save_npz
    from qcompile.errors import QCompileError
    from qcompile.report.files import check_place
    from qcompile.runtime import CudaRunner, Runner

    if as_json and not profile:
        raise QCompileError("it is the form of a profile", node="--json", remedy="give --profile, too")
    if emulate and profile:
        raise QCompileError("times mean nothing under emulation", node="--profile", remedy="leave --emulate out")
    board = board_of(rpc, rpc_tracker, rpc_key)
    if board is not None and (emulate or profile):
        other = "--emulate" if emulate else "--profile"
        raise QCompileError("not on a machine behind RPC", node=other, remedy="leave one of them out")
    if outputs is not None:
        check_place(outputs)
    with _opened(path, emulate, board) as runner:
        feeds = _feeds(runner, inputs)
        with step("running") as update:
            results = []
            for number, feed in enumerate(feeds):
                results.append(runner.run(feed))
                if number % 100 == 0:
                    update(f"{number} of {len(feeds)}")
    if outputs is not None:
        save_npz(outputs, results)
    if print_top:
        for number, result in enumerate(results):
            for name, array in result.items():
                show(f"{name}{f' [{number}]' if len(results) > 1 else ''}: {_top(array, print_top)}")
    if profile and isinstance(runner, (Runner, CudaRunner)):
        _profile(runner, feeds[0], as_json)
    if outputs is None and not print_top and not profile:
        for name, array in results[0].items():
            show(f"{name} {array.dtype} {array.shape}: min {array.min():.6g}, max {array.max():.6g}")
        remark("note: nothing was kept; give --outputs y.npz or --print-top 5")


@contextlib.contextmanager
def _opened(path: Path, emulate: bool, board: Place | None) -> Iterator[Runner | CudaRunner | Emulator | RemoteRunner]:
    if board is not None:
        from qcompile.rpc.runner import RemoteRunner

        with contextlib.ExitStack() as stack:
            with step("connecting"):
                remote = stack.enter_context(RemoteRunner(path, board))
            yield remote
    elif emulate:
        from qcompile.runtime.emulate import Emulator

        yield Emulator(path)
    else:
        from qcompile.runtime import load

        yield load(path)


def _feeds(runner: Runner | CudaRunner | Emulator | RemoteRunner, inputs: Path | None) -> list[Feed]:
    if inputs is None:
        from qcompile.calibrate import random_data

        remark("note: no --inputs, so the model runs on noise")
        return list(random_data([t.spec for t in runner.inputs], 1))
    from qcompile.cli.feeds import load_npz, runs_of

    return list(runs_of(load_npz(inputs), runner.inputs, str(inputs)))


def _top(array: np.ndarray, count: int) -> str:
    """ "3: 0.91, 7: 0.05": index (of a flattened or one-row tensor: its last axis) and value, largest first."""
    flat = array.reshape(-1)
    best = np.argsort(-flat.astype(np.float64), kind="stable")[:count]
    one_row = flat.size == array.shape[-1] if array.ndim else True
    where = [str(i) if one_row else str(tuple(map(int, np.unravel_index(i, array.shape)))) for i in best]
    return ", ".join(f"{w}: {flat[i]:.6g}" for w, i in zip(where, best, strict=True))


def _profile(runner: Runner | CudaRunner, feed: Feed, as_json: bool) -> None:
    from qcompile.bench import measure_peak
    from qcompile.report.profile import profile_rows, profile_table
    from qcompile.runtime import Runner

    manifest = runner.manifest
    formats = sorted({layer.format for layer in manifest.layers if layer.macs}, reverse=True)
    with step("profiling"):
        profile = runner.profile(feed)
        peaks = {}
        if isinstance(runner, Runner):
            peaks = {format: measure_peak(manifest.target, format, manifest.threads) for format in formats}
    if as_json:
        show_json(
            {"model": manifest.model, "target": manifest.target, "threads": manifest.threads}
            | profile_rows(profile, peaks)
        )
        return
    show(profile_table(profile, peaks))
    if peaks:
        threads = f"{manifest.threads} thread{'s' * (manifest.threads > 1)}"
        found = ", ".join(f"{format} {gops:.0f} GOPS" for format, gops in peaks.items())
        show(f"peak of {threads}, by a micro-kernel in this run: {found}")
