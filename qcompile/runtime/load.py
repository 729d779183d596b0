"""``load``: the runner that an artifact needs."""

from __future__ import annotations

from pathlib import Path

from qcompile.artifact import open_artifact
from qcompile.runtime.cuda import CudaRunner
from qcompile.runtime.runner import Runner


def load(path: str | Path, *, verify: bool = True) -> Runner | CudaRunner:
    """Loads a built model, for this CPU or a GPU.

    ``verify`` compares the files' hashes with the manifest (a second for each gigabyte or two of weights).
    Raises ``QCompileError`` if the artifact is damaged or of an unknown format, or this machine cannot run it.
    """
    on_gpu = bool(open_artifact(path, verify=False).manifest.launches)
    return CudaRunner(path, verify=verify) if on_gpu else Runner(path, verify=verify)
