"""``Runner``: an artifact in memory, ready to be called."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qcompile.artifact import LIBRARY, WEIGHTS, open_artifact
from qcompile.errors import QCompileError, nearest
from qcompile.manifest import TensorInfo
from qcompile.runtime.described import Described
from qcompile.runtime.device_array import Seen
from qcompile.runtime.features import check_cpu
from qcompile.runtime.library import load_library, use_threads
from qcompile.runtime.memory import aligned_empty, is_aligned, map_file
from qcompile.runtime.profile import Profile, split

Feed = Mapping[str, np.ndarray]
_FEWEST_CALLS, _MOST_CALLS = 8, 20_000  # of each kind, in a profile


class Binding:
    """Arrays bound to a runner for good: fill ``inputs``, call, read ``outputs``. Nothing is copied.

    Calls of all bindings of a runner take turns, as they share its workspace.
    """

    __slots__ = ("_arguments", "_runner", "inputs", "outputs")

    def __init__(self, runner: Runner, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]):
        import tvm_ffi

        self._runner, self.inputs, self.outputs = runner, inputs, outputs
        self._arguments = [tvm_ffi.from_dlpack(a) for a in (*inputs.values(), *outputs.values())]

    def __call__(self) -> None:
        runner = self._runner
        with runner._lock:
            runner._call(self._arguments)


class Runner(Described):
    """A loaded model. ``run`` may be called from several threads; the calls take turns."""

    def __init__(self, path: str | Path, *, verify: bool = True):
        import tvm_ffi

        artifact = open_artifact(path, verify)
        self.manifest = artifact.manifest
        check_cpu(self.manifest.triple, self.manifest.features, self.manifest.target, str(path))
        self._library = load_library(artifact.path / LIBRARY)
        self._entry = self._library["main"]
        self._weights = map_file(artifact.path / WEIGHTS)
        self._workspace = aligned_empty((self.manifest.workspace_bytes,), np.uint8)
        self._memory = tuple(tvm_ffi.from_dlpack(a) for a in (self._weights, self._workspace))
        self._threads = self.manifest.threads
        self._lock = threading.Lock()
        self._own = self.bind()
        self._inputs = [(t.name, self._own.inputs[t.name], np.dtype(t.dtype), t.shape) for t in self.manifest.inputs]
        self._outputs = list(self._own.outputs.items())

    def run(self, feed: Feed, *, copy: bool = True) -> dict[str, np.ndarray]:
        """Runs the model on arrays by input name; returns arrays by output name.

        With ``copy=False`` the results are views that the next run overwrites.
        Raises ``QCompileError`` for names, shapes or dtypes that are not the model's.
        """
        own, arguments = self._own, self._own._arguments
        with self._lock:
            if len(feed) != len(self._inputs):
                check_names(feed, self.inputs)
            for name, view, dtype, shape in self._inputs:
                array = feed.get(name)
                if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
                    array = self._checked(feed, name)
                view[...] = array
            self._call(arguments)
            if not copy:
                return dict(own.outputs)
            return {name: view.copy() for name, view in self._outputs}

    def bind(self, inputs: Feed | None = None, outputs: Feed | None = None) -> Binding:
        """Binds arrays for calls without a copy; those that are not given are allocated.

        Given arrays must be C-contiguous and writable and start on a 64-byte boundary (``aligned_empty``).
        """
        return Binding(
            self,
            _bound(inputs or {}, self.manifest.inputs, "input"),
            _bound(outputs or {}, self.manifest.outputs, "output"),
        )

    def profile(self, feed: Feed, seconds: float = 1.0) -> Profile:
        """Where the time of a call goes, from calls of about so many ``seconds``.

        The library's ``profile`` entry takes one more argument than ``main``: int64 stamps of the CPU's cycle counter,
        one before the first kernel and one after each. Raises ``QCompileError`` if the library has no such entry.
        """
        calls = self.manifest.calls
        if not calls or not self._library.implements_function("profile"):
            raise QCompileError("the library has no profile entry", remedy="build the model again")
        import tvm_ffi

        stamps = aligned_empty((len(calls) + 1,), np.int64)
        plain = (*self._own._arguments, *self._memory)
        stamped = (*plain, tvm_ffi.from_dlpack(stamps))
        main, profile, clock = self._entry, self._library["profile"], time.perf_counter
        times: list[tuple[float, float, float]] = []
        seen: list[np.ndarray] = []
        self.run(feed, copy=False)
        with self._lock:
            end = clock() + seconds
            while len(times) < _FEWEST_CALLS or (len(times) < _MOST_CALLS and clock() < end):
                start = clock()
                main(*plain)
                middle = clock()
                profile(*stamped)
                times.append((start, middle, clock()))
                seen.append(stamps.copy())
        starts, middles, ends = 1e6 * np.array(times).T
        ticks = np.array(seen)
        rate = (middles[-1] - middles[0]) / (ticks[-1, 0] - ticks[0, 0])  # the counter's is constant
        return split(calls, self.manifest.layers, middles - starts, ends - middles, rate * (ticks - ticks[0, 0]))

    def _call(self, arguments: list) -> None:
        if self._threads > 1:
            use_threads(self._threads)
        self._entry(*arguments, *self._memory)

    def _checked(self, feed: Feed, name: str) -> np.ndarray:
        """The array for an input that is not exactly what is expected: an error, or a list that can be converted."""
        check_names(feed, self.inputs)
        info = next(t for t in self.manifest.inputs if t.name == name)
        if name not in feed:
            raise QCompileError(f"no value for input '{name}'", remedy=f"give {info.dtype} of shape {info.shape}")
        array = np.asarray(feed[name])
        check_array(array, info, "input")
        return array


def _bound(given: Feed, infos: tuple[TensorInfo, ...], what: str) -> dict[str, np.ndarray]:
    check_names(given, infos, what)
    for info in infos:
        if info.name in given:
            array = given[info.name]
            check_array(array, info, what)
            if not (array.flags.c_contiguous and array.flags.writeable and is_aligned(array)):
                raise QCompileError(
                    "not a writable C-contiguous array on a 64-byte boundary",
                    node=f"{what} {info.name}",
                    remedy="allocate it with qcompile.aligned_empty",
                )
    return {t.name: given[t.name] if t.name in given else aligned_empty(t.shape, t.dtype) for t in infos}


def check_names(feed: Feed, infos: tuple[TensorInfo, ...], what: str = "input") -> None:
    """Raises ``QCompileError`` for a name that none of ``infos`` has."""
    names = [t.name for t in infos]
    for name in feed:
        if name not in names:
            raise QCompileError(f"the model has no {what} '{name}'", remedy=nearest(name, names))


def check_array(array: np.ndarray | Seen, info: TensorInfo, what: str) -> None:
    """Raises ``QCompileError`` unless the array has the shape and dtype of ``info``."""
    if array.shape != info.shape:
        raise QCompileError(f"shape {array.shape}, the model has {info.shape}", node=f"{what} {info.name}")
    if array.dtype != np.dtype(info.dtype):
        raise QCompileError(
            f"dtype {array.dtype}, the model has {info.dtype}",
            node=f"{what} {info.name}",
            remedy=f"convert it: array.astype('{info.dtype}')",
        )


def checked_feed(feed: Feed, infos: tuple[TensorInfo, ...]) -> list[np.ndarray]:
    """The arrays of a feed in the model's order. Raises ``QCompileError`` for one that is missing or does not fit."""
    check_names(feed, infos)
    arrays = []
    for info in infos:
        if info.name not in feed:
            raise QCompileError(f"no value for input '{info.name}'", remedy=f"give {info.dtype} of {info.shape}")
        arrays.append(np.asarray(feed[info.name]))
        check_array(arrays[-1], info, "input")
    return arrays
