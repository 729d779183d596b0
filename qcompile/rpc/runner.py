"""Runs an artifact on a machine behind TVM's RPC: library and weights are sent there once, inputs with each call."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np

from qcompile.artifact import LIBRARY, WEIGHTS, open_artifact
from qcompile.errors import QCompileError
from qcompile.rpc.places import Place, use_threads
from qcompile.runtime.described import Described
from qcompile.runtime.memory import SLACK, map_file
from qcompile.runtime.runner import Feed, checked_feed


class RemoteRunner(Described):
    """Has the inputs, outputs and ``run`` of a ``Runner``, and is a context manager: at its end the machine is free.

    Raises ``QCompileError`` if the artifact is damaged, the machine cannot be reached, is of another architecture or
    lacks a feature, or the connection is lost.
    """

    def __init__(self, path: str | Path, place: Place, *, verify: bool = True):
        artifact = open_artifact(path, verify)
        self.manifest = artifact.manifest
        self._session: Any = None
        self._main: Any = None
        self._arguments: list[Any] = []
        with contextlib.ExitStack() as stack:
            self._session = stack.enter_context(place.session(0))
            with _in_words(path):
                self._load(artifact.path)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._arguments.clear()
        self._main = self._session = None  # the server goes on with the next client when nothing refers to it
        self._stack.close()

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Runs the model on arrays by input name; returns arrays by output name.

        Raises ``QCompileError`` for names, shapes or dtypes that are not the model's, and for a lost connection.
        """
        arrays = checked_feed(feed, self.inputs)
        with _in_words(None):
            for argument, array in zip(self._arguments, arrays, strict=False):
                argument.copyfrom(np.ascontiguousarray(array))
            self._main(*self._arguments)
            results = self._arguments[len(arrays) : len(arrays) + len(self.outputs)]
            return {info.name: result.numpy() for info, result in zip(self.outputs, results, strict=True)}

    def _load(self, folder: Path) -> None:
        from qcompile.rpc.machine import build_reader, load, machine_behind

        manifest, session = self.manifest, self._session
        with tempfile.TemporaryDirectory(prefix="qcompile-") as scratch:
            reader = Path(scratch) / "reader.so"
            build_reader(manifest.triple, reader)
            machine_behind(session, reader).check(manifest.features, manifest.target)
        use_threads(session, manifest.threads)
        self._main = load(session, folder / LIBRARY)["main"]
        weights = self._buffer((manifest.weights.bytes,), "uint8")
        if manifest.weights.bytes:
            weights.copyfrom(map_file(folder / WEIGHTS))
        tensors = [self._buffer(info.shape, info.dtype) for info in (*manifest.inputs, *manifest.outputs)]
        self._arguments = [*tensors, weights, self._buffer((manifest.workspace_bytes,), "uint8")]

    def _buffer(self, shape: tuple[int, ...], dtype: str) -> Any:
        """On the machine, with readable bytes behind its end; TVM puts it on a 64-byte boundary."""
        import tvm

        size = prod(shape) * np.dtype(dtype).itemsize + SLACK
        memory = tvm.runtime.empty((size,), "uint8", self._session.cpu(0))
        return memory._create_view(shape, dtype)


@contextlib.contextmanager
def _in_words(path: str | Path | None) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise QCompileError(
            f"running it over RPC failed: {reason}",
            node=None if path is None else str(path),
            remedy="see what the server prints",
        ) from None
