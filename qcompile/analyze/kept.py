"""The simulation of an analysis that was interrupted stays beside its checkpoint, and is not compiled again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from qcompile.analyze.checkpoint import Checkpoint
from qcompile.simulate.simulation import Simulation

_KEY = "key"  # file with what the simulation is of, written when all others are there


@contextlib.contextmanager
def simulation_folder(checkpoint: Path | None) -> Iterator[Path]:
    """Where a simulation is compiled to: a temporary folder, or one beside the checkpoint, which stays if there is one
    in the end.
    """
    if checkpoint is None:
        with tempfile.TemporaryDirectory(prefix="qcompile-analysis-") as folder:
            yield Path(folder)
        return
    place = checkpoint.with_name(f"{checkpoint.name}.simulation")
    try:
        yield place
    finally:
        if not checkpoint.exists():
            shutil.rmtree(place, ignore_errors=True)


def kept_simulation(place: Path, key: str, resume: bool, compiled: Callable[[], Simulation]) -> Simulation:
    """The one at ``place`` if it is of ``key``, and of an interrupted analysis; else one that is compiled to there."""
    file = place / _KEY
    if resume and file.is_file() and file.read_text() == key:
        return Simulation(place)
    shutil.rmtree(place, ignore_errors=True)
    simulation = compiled()
    file.write_text(key)
    return simulation


@contextlib.contextmanager
def closing(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Closes a checkpoint, and removes it if the analysis is finished or has not got anywhere."""
    finished = False
    try:
        yield
        finished = True
    finally:
        if checkpoint is not None:
            checkpoint.close(finished or not checkpoint.done)
