"""``CudaRunner``: an artifact of GPU code, loaded and ready to be called. Needs the driver and numpy, nothing else."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.artifact import WEIGHTS, open_artifact
from qcompile.errors import QCompileError
from qcompile.manifest import KernelCall, Launch, Manifest, TensorInfo
from qcompile.runtime import driver as drivers
from qcompile.runtime.described import Described
from qcompile.runtime.device_array import DeviceArray, is_on_device, seen
from qcompile.runtime.driver import SHARED, Driver
from qcompile.runtime.memory import map_file
from qcompile.runtime.profile import Profile, split
from qcompile.runtime.runner import Feed, check_array, check_names, checked_feed

_ALIGNMENT = 16  # bytes: kernels read inputs and write outputs in words of up to so many
_FEWEST_CALLS, _MOST_CALLS = 8, 1000  # of each kind, in a profile


class _Session:
    """What a runner and its bindings share: a module on a GPU, its constants and workspace, and a stream."""

    def __init__(self, path: str | Path, verify: bool, number: int):
        artifact = open_artifact(path, verify)
        self.manifest: Manifest = artifact.manifest
        self.driver = driver = drivers.open_driver(drivers.LIBRARY)
        self.number, self.device = number, driver.device(number)
        self.context = driver.use_primary_context(self.device)
        self.lock = threading.Lock()
        name, image = choose_image(
            artifact.path / self.manifest.library_file, driver.capability(self.device), str(path)
        )
        self.launches = launches_of(self.manifest, name)
        module = driver.load(image)
        self.functions = {launch.kernel: driver.function(module, launch.kernel) for launch in self.launches}
        for launch in self.launches:
            if launch.shared > SHARED:
                driver.allow_shared(self.functions[launch.kernel], launch.shared)
        self.stream = driver.stream()
        weights = map_file(artifact.path / WEIGHTS)
        self.held = (_Memory(self, weights.nbytes), _Memory(self, self.manifest.workspace_bytes))
        self.memory = dict(zip(("weights", "workspace"), (each.pointer for each in self.held), strict=True))
        driver.to_device(self.memory["weights"], weights.ctypes.data, weights.nbytes, self.stream)
        driver.wait(self.stream)

    def launch(self, launch: Launch, memory: Mapping[str, int]) -> None:
        arguments = [memory[name] + offset for name, offset in launch.arguments]
        kernel = self.functions[launch.kernel]
        self.driver.launch(kernel, launch.grid, launch.block, launch.shared, self.stream, arguments)

    def made(self, info: TensorInfo) -> DeviceArray:
        dtype = np.dtype(info.dtype)
        memory = _Memory(self, int(np.prod(info.shape, dtype=np.int64)) * dtype.itemsize)
        return DeviceArray(memory.pointer, info.shape, dtype, self.number, memory, self.copied)

    def bound(self, array: Any, info: TensorInfo, what: str) -> DeviceArray:
        """Another library's array."""
        node = f"{what} {info.name}"
        if not is_on_device(array):
            raise QCompileError(
                "not an array in the GPU's memory", node=node, remedy="bind a torch or cupy tensor, or use run()"
            )
        found = seen(array)
        check_array(found, info, what)
        if not found.contiguous or found.pointer % _ALIGNMENT:
            raise QCompileError(
                f"not C-contiguous on a {_ALIGNMENT}-byte boundary", node=node, remedy="copy it: tensor.contiguous()"
            )
        return DeviceArray(found.pointer, found.shape, found.dtype, self.number, found.keep, self.copied)

    def copied(self, array: DeviceArray) -> np.ndarray:
        """To the host."""
        with self.lock:
            self.driver.use(self.context)
            return self.load(array)

    def load(self, array: DeviceArray) -> np.ndarray:
        result = np.empty(array.shape, array.dtype)
        self.driver.to_host(result.ctypes.data, array.pointer, result.nbytes, self.stream)
        self.driver.wait(self.stream)
        return result


class _Memory:
    """Memory of a GPU that is freed when nothing holds this any more."""

    def __init__(self, session: _Session, size: int):
        self.pointer = session.driver.allocate(size)
        weakref.finalize(self, _free, session.driver, session.context, self.pointer)


class CudaRunner(Described):
    """A loaded model. ``run`` may be called from several threads; the calls take turns."""

    def __init__(self, path: str | Path, *, verify: bool = True, device: int = 0):
        self._session = _Session(path, verify, device)
        self.manifest = self._session.manifest
        self._own = self.bind()

    @property
    def device_name(self) -> str:
        return self._session.driver.name(self._session.device)

    def run(self, feed: Feed, *, copy: bool = True) -> dict[str, np.ndarray]:
        """Runs the model on arrays by input name; returns arrays on the host by output name.

        Raises ``QCompileError`` for names, shapes or dtypes that are not the model's. copy: as ``Runner.run`` has it;
        results are always copies here.
        """
        arrays = [np.ascontiguousarray(array) for array in checked_feed(feed, self.inputs)]
        session = self._session
        with session.lock:
            session.driver.use(session.context)
            for array, place in zip(arrays, self._own.inputs.values(), strict=True):
                session.driver.to_device(place.pointer, array.ctypes.data, array.nbytes, session.stream)
            self._own.launch()
            return {name: session.load(array) for name, array in self._own.outputs.items()}

    def bind(self, inputs: Mapping[str, Any] | None = None, outputs: Mapping[str, Any] | None = None) -> CudaBinding:
        """Binds arrays in the GPU's memory (of torch, cupy, ...) for calls without a copy; what is not given is made.

        Given ones must be C-contiguous and start on a 16-byte boundary.
        """
        session = self._session
        arrays = []
        with session.lock:
            session.driver.use(session.context)
            for what, given, infos in (("input", inputs or {}, self.inputs), ("output", outputs or {}, self.outputs)):
                check_names(given, infos, what)
                own = [session.bound(given[t.name], t, what) if t.name in given else session.made(t) for t in infos]
                arrays.append(dict(zip((t.name for t in infos), own, strict=True)))
            return CudaBinding(session, *arrays)

    def profile(self, feed: Feed, seconds: float = 1.0) -> Profile:
        """Where the time of a call goes, from calls of about so many ``seconds``: kernels by events around each.

        The whole call is that of ``bind``, a graph, whose kernels follow each other more closely.
        """
        self.run(feed)
        session, launches, own = self._session, self._session.launches, self._own
        driver, stream = session.driver, session.stream
        plain: list[float] = []
        stamps: list[list[float]] = []
        with session.lock, _events(driver, len(launches) + 1) as (start, *events):
            end = time.perf_counter() + seconds
            while len(plain) < _FEWEST_CALLS or (len(plain) < _MOST_CALLS and time.perf_counter() < end):
                plain.append(_timed(driver, stream, start, events[0], own.launch))
                driver.record(start, stream)
                for launch, event in zip(launches, events, strict=True):
                    session.launch(launch, own.arguments)
                    driver.record(event, stream)
                driver.wait(stream)
                stamps.append([0.0, *(driver.microseconds(start, event) for event in events)])
        ticks = np.array(stamps)
        calls = tuple(KernelCall(launch.kernel, launch.layer) for launch in launches)
        return split(calls, self.manifest.layers, np.array(plain), ticks[:, -1], ticks)

    def microseconds(self, calls: int) -> list[float]:
        """The GPU's times of so many calls, on what the inputs hold."""
        session = self._session
        driver = session.driver
        with session.lock:
            driver.use(session.context)  # of this thread, before anything is made in it
            with _events(driver, 2) as (first, last):
                return [_timed(driver, session.stream, first, last, self._own.launch) for _ in range(calls)]


class CudaBinding:
    """Arrays bound to a runner for good: fill ``inputs``, call, read ``outputs``. Nothing is copied.

    Launches are a CUDA graph, made once. Calls of all bindings of a runner take turns, as they share its workspace.
    """

    def __init__(self, session: _Session, inputs: dict[str, DeviceArray], outputs: dict[str, DeviceArray]):
        self._session, self.inputs, self.outputs = session, inputs, outputs
        self.arguments = dict(session.memory)
        for what, arrays in (("input", inputs), ("output", outputs)):
            self.arguments |= {f"{what}{i}": array.pointer for i, array in enumerate(arrays.values())}
        driver = session.driver
        driver.begin_capture(session.stream)
        for launch in session.launches:
            session.launch(launch, self.arguments)
        self._graph = driver.end_capture(session.stream)
        weakref.finalize(self, driver.destroy_graph, self._graph)

    def __call__(self) -> None:
        """Runs the model and waits for it."""
        session = self._session
        with session.lock:
            session.driver.use(session.context)
            self.launch()
            session.driver.wait(session.stream)

    def launch(self, stream: int | None = None) -> None:
        """Starts the model behind what is on a stream (a handle of the driver; the runner's own if None).

        Calls on several streams must not overlap: they share the workspace.
        """
        self._session.driver.launch_graph(self._graph, self._session.stream if stream is None else stream)


@contextlib.contextmanager
def _events(driver: Driver, count: int) -> Iterator[list[int]]:
    events = [driver.event() for _ in range(count)]
    try:
        yield events
    finally:
        for event in events:
            driver.destroy_event(event)


def _timed(driver: Driver, stream: int, first: int, last: int, launch: Callable[[], None]) -> float:
    """Microseconds of what ``launch`` starts on the stream."""
    driver.record(first, stream)
    launch()
    driver.record(last, stream)
    driver.wait(stream)
    return driver.microseconds(first, last)


def choose_image(library: Path, capability: tuple[int, int], where: str) -> tuple[str, bytes]:
    """The machine code for a GPU: of its generation, as new as it can run; else PTX that its driver can compile.

    Returns its name, too, "sm_80" or "compute_90".
    """
    major, minor = capability
    with zipfile.ZipFile(library) as archive:
        names = archive.namelist()
        fits = [n for n in names if n.endswith(".cubin") and (a := _version(n))[0] == major and a[1] <= minor]
        later = [n for n in names if n.endswith(".ptx") and _version(n) <= (major, minor)]
        if not fits and not later:
            held = ", ".join(name.partition(".")[0] for name in names)
            raise QCompileError(
                f"built for {held}, and this GPU is sm_{major}{minor}", node=where, remedy="build with --target cuda"
            )
        chosen = max(fits or later, key=_version)
        data = archive.read(chosen)
    return chosen.partition(".")[0], data if fits else data.rstrip(b"\0") + b"\0"


def launches_of(manifest: Manifest, image: str) -> tuple[Launch, ...]:
    """Of machine code, or of PTX, which is that of the newest architecture."""
    return manifest.launches.get(image) or list(manifest.launches.values())[-1]


def _version(name: str) -> tuple[int, int]:
    """(8, 6) of "sm_86.cubin"."""
    digits = name.partition(".")[0].rpartition("_")[2]
    return int(digits[:-1]), int(digits[-1])


def _free(driver: Driver, context: int, pointer: int) -> None:
    driver.use(context)
    driver.free(pointer)
