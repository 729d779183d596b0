"""``qcompile run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from qcompile.cli.console import remark, show, step

if TYPE_CHECKING:
    from qcompile.cli.feeds import Feed
    from qcompile.runtime import Runner


def run(
    path: Annotated[Path, typer.Argument(help="The artifact folder.")],
    inputs: Annotated[
        Path | None, typer.Option("-i", "--inputs", help=".npz by input name; noise if not given.")
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option("-o", "--outputs", help="Where to write an .npz by output name.")
    ] = None,
    print_top: Annotated[int, typer.Option("--print-top", min=0, help="Print the N largest values and where.")] = 0,
    profile: Annotated[bool, typer.Option("--profile", help="Print the time of each kernel.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of defects.")] = False,
) -> None:
    """Run a built model on arrays.

    Their first axis may hold more samples than the model takes at once.

    \b
    Examples:
      qcompile run out/ --inputs x.npz --outputs y.npz
      qcompile run out/ --inputs x.npz --print-top 5
      qcompile run out/ --profile
    """
    from qcompile.cli.feeds import save_npz
    from qcompile.runtime import load

    runner = load(path)
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
    if profile:
        _profile(runner, feeds[0])
    if outputs is None and not print_top and not profile:
        for name, array in results[0].items():
            show(f"{name} {array.dtype} {array.shape}: min {array.min():.6g}, max {array.max():.6g}")
        remark("note: nothing was kept; give --outputs y.npz or --print-top 5")


def _feeds(runner: Runner, inputs: Path | None) -> list[Feed]:
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


def _profile(runner: Runner, feed: Feed) -> None:
    from qcompile.report.tables import table
    from qcompile.report.units import microseconds

    times = runner.profile(feed)
    total = sum(t.microseconds for t in times)
    rows = [[t.layer, t.kernel, microseconds(t.microseconds), f"{t.microseconds / total:.1%}"] for t in times]
    show(
        table(["layer", "kernel", "us", "share"], [*rows, ["", "all", microseconds(total), ""]], right=["us", "share"])
    )
