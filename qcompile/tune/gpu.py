"""Measures on a GPU: of this machine, or of one behind RPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from qcompile.errors import QCompileError
from qcompile.rpc.machine import Machine
from qcompile.rpc.places import Here, Place
from qcompile.runtime import driver as drivers
from qcompile.runtime.driver import Driver
from qcompile.targets.cuda.compiler import find_compiler
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.tune.gpu_builder import build_kernels
from qcompile.tune.gpu_timing import measure
from qcompile.tune.measurer import STEP_SECONDS
from qcompile.tune.timed import TimingMeasurer

HERE = Here()


@dataclass(frozen=True, slots=True)
class Gpu:
    """name: "NVIDIA H100 80GB HBM3". capability: (9, 0). processors: multiprocessors."""

    name: str
    capability: tuple[int, int]
    processors: int


@contextmanager
def opened(library: str, place: Place, seconds: float) -> Iterator[Driver]:
    """The driver at a place, with the first GPU's primary context in use. library: its name, "libcuda.so.1"."""
    if isinstance(place, Here):
        driver = drivers.open_driver(library)
        driver.use_primary_context(driver.device(0))
        yield driver
        return
    from qcompile.rpc.gpu import remote_driver

    with remote_driver(place, library, seconds) as remote:
        remote.use_primary_context(remote.device(0))
        yield remote


def gpu_at(place: Place, library: str = drivers.LIBRARY, seconds: float = STEP_SECONDS) -> Gpu:
    """Raises ``QCompileError`` where there is no driver, or no GPU."""
    with opened(library, place, seconds) as driver:
        device = driver.device(0)
        return Gpu(driver.name(device), driver.capability(device), driver.processors(device))


def row_for(target: CudaTarget, gpu: Gpu) -> CudaTarget:
    """The one architecture of the target whose code the GPU runs: of its generation, as new as it can.

    Raises ``QCompileError`` if there is none.
    """
    major, minor = gpu.capability
    versions = {arch: (int(arch[3:-1]), int(arch[-1])) for arch in target.architectures}
    fits = [arch for arch, version in versions.items() if version[0] == major and version[1] <= minor]
    if not fits:
        raise QCompileError(
            f"the GPU ({gpu.name}) is sm_{major}{minor}, and runs no code for {', '.join(target.architectures)}",
            node=target.name,
            remedy="tune on a card of that generation, or name another architecture",
        )
    return target.narrowed(max(fits, key=versions.__getitem__))


class GpuMeasurer(TimingMeasurer):
    """Measures seconds on the first GPU at a ``place``; ``cores`` are its multiprocessors.

    target: of one architecture. Raises ``QCompileError`` if there is no such GPU, or no compiler here.
    """

    def __init__(
        self,
        target: CudaTarget,
        place: Place = HERE,
        workers: int | None = None,
        patience: float = STEP_SECONDS,
        library: str | None = None,
    ) -> None:
        self._library = library or drivers.LIBRARY
        compiler = find_compiler()
        self._gpu = gpu_at(place, self._library, patience)
        row_for(target, self._gpu)
        name, _, version = compiler.name.partition(" ")
        self.compilers = ((name, version),)
        super().__init__(
            target, place, workers, patience, build_kernels, partial(measure, partial(opened, self._library))
        )

    def _machine(self) -> Machine:
        return Machine(self._gpu.name, self._gpu.processors, frozenset())
