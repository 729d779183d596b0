"""Runs the model of this folder from Python, in this process; needs numpy, and nothing else.

python3 run.py inputs.npz [outputs.npz]        arrays by input name, whose first axis may hold more samples

    from run import Model
    model = Model()
    outputs = model.run({"image": image})
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


class _Tensor(ctypes.Structure):
    """``qc_tensor`` of qcompile.h."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("bytes", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
    ]


def _runtime(path: Path) -> ctypes.CDLL:
    with contextlib.suppress(OSError):  # where libm is part of libc
        ctypes.CDLL("libm.so.6", mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path))
    library.qc_open.restype, library.qc_open.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    library.qc_error.restype = ctypes.c_char_p
    for name in ("qc_run", "qc_close", "qc_inputs", "qc_outputs"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("qc_input", "qc_output"):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_int]
        getattr(library, name).restype = ctypes.POINTER(_Tensor)
    return library


class Model:
    """The model of ``folder``, on ``threads`` threads (0: as many as it was built for); results do not depend on them.

    inputs, outputs: arrays by name, which ``call`` reads and writes in place. Python's threads take turns in ``run``.
    Raises ``RuntimeError`` if this machine cannot run it.
    """

    def __init__(self, folder: str | Path = HERE, threads: int = 0):
        self._runtime = _runtime(HERE / "libqcompile.so")
        self._model = self._runtime.qc_open(str(folder).encode(), threads)
        self._check(not self._model)
        self._lock = threading.Lock()
        self.inputs = self._tensors(self._runtime.qc_inputs(self._model), self._runtime.qc_input)
        self.outputs = self._tensors(self._runtime.qc_outputs(self._model), self._runtime.qc_output)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call: arrays by input name -> arrays by output name, which are the caller's."""
        if unknown := set(feed) ^ set(self.inputs):
            raise ValueError(f"the inputs are {', '.join(self.inputs)}; wrong or missing: {', '.join(sorted(unknown))}")
        for name, place in self.inputs.items():
            array = np.asarray(feed[name])
            if array.shape != place.shape or array.dtype != place.dtype:
                given = f"{array.dtype} of {array.shape}"
                raise ValueError(f"{name} is {given}, the model has {place.dtype} of {place.shape}")
        with self._lock:
            for name, place in self.inputs.items():
                place[...] = feed[name]
            self.call()
            return {name: place.copy() for name, place in self.outputs.items()}

    def call(self) -> None:
        """Computes ``outputs`` from ``inputs``."""
        self._check(self._runtime.qc_run(self._model))

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self._runtime.qc_close(self._model)

    def _check(self, failed: bool) -> None:
        if failed:
            raise RuntimeError(self._runtime.qc_error().decode())

    def _tensors(self, count: int, get) -> dict[str, np.ndarray]:
        found = {}
        for number in range(count):
            tensor = get(self._model, number).contents
            memory = (ctypes.c_uint8 * tensor.bytes).from_address(tensor.data)
            memory.model = self  # whoever holds the array keeps the model
            array = np.frombuffer(memory, np.uint8).view(tensor.dtype.decode())
            found[tensor.name.decode()] = array.reshape(tensor.shape[: tensor.rank])
        return found


def run_all(model: Model, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As ``model.run``, so often as the first axes of all inputs hold its samples; outputs joined along theirs."""
    cut = {}
    for name, array in feed.items():
        shape = model.inputs[name].shape if name in model.inputs else array.shape
        fits = shape and array.shape[1:] == shape[1:] and len(array) > 0 and len(array) % shape[0] == 0
        cut[name] = array.reshape(-1, *shape) if fits else array[None]
    runs = {len(arrays) for arrays in cut.values()}
    if len(runs) > 1:
        raise ValueError("the inputs hold different numbers of samples")
    results = [model.run({name: arrays[i] for name, arrays in cut.items()}) for i in range(max(runs, default=1))]
    if len(results) == 1:
        return results[0]
    return {name: np.concatenate([np.atleast_1d(result[name]) for result in results]) for name in model.outputs}


def main(arguments: list[str]) -> int:
    if not arguments:
        sys.exit(__doc__)
    try:
        with np.load(arguments[0]) as inputs:
            outputs = run_all(Model(), inputs)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if len(arguments) > 1:
        np.savez(arguments[1], **outputs)  # type: ignore[arg-type]
    for name, array in outputs.items():
        print(name, array.dtype, array.shape, "largest at", int(array.argmax()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
