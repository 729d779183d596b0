"""Runs artifacts of other machines: the C runner in a process of its own, under QEMU's user-mode emulation.

Results are those of the machine, to the bit. Times mean nothing.
"""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from qcompile.artifact import LIBRARY, WEIGHTS, open_artifact
from qcompile.errors import QCompileError
from qcompile.manifest import TensorInfo
from qcompile.runtime.counting import Executed, counting, read_counts, read_sections
from qcompile.runtime.described import Described
from qcompile.runtime.executable import DESCRIPTION, description_of, runner_for
from qcompile.runtime.runner import Feed, checked_feed

# The plainest CPU that has what code needs is emulated, so that an instruction beyond it is seen; the words are those
# of /proc/cpuinfo.
_ARMV80 = frozenset({"fp", "asimd", "aes", "pmull", "sha1", "sha2", "crc32"})
_ARMV82 = _ARMV80 | {"atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp"}
_CPUS = {"aarch64": (("cortex-a53", _ARMV80), ("neoverse-n1", _ARMV82))}


def launcher(triple: str, features: Iterable[str]) -> list[str]:
    """The words before a program's path that run it here: none on its own machine, else QEMU and a CPU.

    Raises ``QCompileError`` that says how to install QEMU.
    """
    arch, needed = triple.split("-")[0], frozenset(features)
    if arch == platform.machine():
        return []
    qemu = shutil.which(f"qemu-{arch}") or shutil.which(f"qemu-{arch}-static")
    if qemu is None:
        raise QCompileError(
            f"built for {arch}, this machine is {platform.machine()}, and qemu-{arch} is not installed",
            remedy="install it ('apt install qemu-user'), or run the model on such a machine",
        )
    cpu = next((name for name, has in _CPUS.get(arch, ()) if needed <= has), "max")
    return [qemu, "-cpu", cpu]


def call(
    command: Sequence[str],
    folder: Path,
    inputs: Iterable[np.ndarray],
    outputs: Sequence[TensorInfo],
    calls: int = 1,
    limit: float | None = None,
) -> list[np.ndarray]:
    """Runs the C runner on the model in ``folder``, which it calls so many times.

    command: the runner's path, behind its ``launcher``. limit: seconds until it is ended.
    Raises ``QCompileError`` for what it says went wrong.
    """
    with tempfile.TemporaryDirectory(prefix="qcompile-") as scratch:
        files = []
        for number, array in enumerate(inputs):
            files.append(Path(scratch) / f"input{number}")
            np.ascontiguousarray(array).tofile(files[-1])
        results = [Path(scratch) / f"output{number}" for number in range(len(outputs))]
        words = [*command, str(folder), "--repeat", str(calls), *map(str, files), *map(str, results)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=limit)
        except subprocess.TimeoutExpired:
            raise QCompileError(f"the runner did not end within {limit:.0f} s", node=str(folder)) from None
        if done.returncode:
            said = done.stderr.strip().removeprefix("error: ")
            stopped = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit status {done.returncode}"
            raise QCompileError(said or f"the runner was stopped by {stopped}", node=str(folder))
        return [np.fromfile(file, t.dtype).reshape(t.shape) for file, t in zip(results, outputs, strict=True)]


def count(
    command: Sequence[str], folder: Path, inputs: Sequence[np.ndarray], outputs: Sequence[TensorInfo]
) -> dict[str, int]:
    """Instructions of one ``call``, by mnemonic: the difference between a run of two calls and one of a single call."""
    totals = []
    for calls in (1, 2):
        with tempfile.NamedTemporaryFile(prefix="qcompile-") as log:
            call(counting(command, log.name), folder, inputs, outputs, calls)
            totals.append(read_counts(log.name))
    once, twice = totals
    return {word: twice[word] - once.get(word, 0) for word in twice if twice[word] > once.get(word, 0)}


def trace(
    command: Sequence[str], folder: Path, inputs: Sequence[np.ndarray], outputs: Sequence[TensorInfo]
) -> list[list[Executed]]:
    """What one ``call`` executes between a reading of the virtual counter and the next, by address."""
    with tempfile.NamedTemporaryFile(prefix="qcompile-") as log:
        call(counting(command, log.name, sections=True), folder, inputs, outputs)
        return read_sections(log.name)


def count_sections(
    command: Sequence[str],
    folder: Path,
    inputs: Sequence[np.ndarray],
    outputs: Sequence[TensorInfo],
    limit: float | None = None,
) -> tuple[list[np.ndarray], list[int]]:
    """Results of one ``call``, and how many instructions each of ``trace``'s sections has."""
    with tempfile.NamedTemporaryFile(prefix="qcompile-") as log:
        results = call(counting(command, log.name, sections=True), folder, inputs, outputs, limit=limit)
        return results, [sum(i.times for i in section) for section in read_sections(log.name)]


class Emulator(Described):
    """An artifact of any machine, ready to be run; has the inputs, outputs and ``run`` of a ``Runner``."""

    def __init__(self, path: str | Path, *, verify: bool = True):
        """Raises ``QCompileError`` if the artifact is damaged, or QEMU or the runner cannot be had."""
        artifact = open_artifact(path, verify)
        self.manifest = artifact.manifest
        if self.manifest.launches:
            raise QCompileError("GPUs are not emulated here", node=str(path), remedy="run it on a machine that has one")
        triple = self.manifest.triple
        self._command = [*launcher(triple, self.manifest.features), str(runner_for(triple))]
        self._folder = tempfile.TemporaryDirectory(prefix="qcompile-")
        place = Path(self._folder.name)
        (place / DESCRIPTION).write_text(description_of(self.manifest), encoding="utf-8")
        for name in (LIBRARY, WEIGHTS):
            (place / name).symlink_to((artifact.path / name).resolve())

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Runs the model on arrays by input name; returns arrays by output name.

        Raises ``QCompileError`` for names, shapes or dtypes that are not the model's, and for what the runner says.
        """
        arrays = self._checked(feed)
        results = call(self._command, Path(self._folder.name), arrays, self.outputs)
        return {info.name: array for info, array in zip(self.outputs, results, strict=True)}

    def count(self, feed: Feed) -> dict[str, int]:
        """Instructions that one call executes, by mnemonic; needs QEMU, and a C compiler for this machine."""
        return count(self._command, Path(self._folder.name), self._checked(feed), self.outputs)

    def trace(self, feed: Feed) -> list[list[Executed]]:
        """Instructions that one call executes in each of the manifest's ``calls``, by address.

        The few before the first kernel and after the last one are left out. Needs what ``count`` does.
        """
        number = len(self.manifest.calls)
        stamps = TensorInfo("stamps", (number + 1,), "int64")
        with tempfile.TemporaryDirectory(prefix="qcompile-") as scratch:
            place = Path(scratch)
            for name in (LIBRARY, WEIGHTS):
                (place / name).symlink_to((Path(self._folder.name) / name).resolve())
            text = f"{description_of(self.manifest)}output int64 1 {number + 1} stamps\nentry profile\n"
            (place / DESCRIPTION).write_text(text, encoding="utf-8")
            kernels = trace(self._command, place, self._checked(feed), [*self.outputs, stamps])
        if len(kernels) != number:
            raise QCompileError(f"stamps {len(kernels)} kernels, not {number}", node="profile")
        return kernels

    def _checked(self, feed: Feed) -> list[np.ndarray]:
        return checked_feed(feed, self.inputs)
