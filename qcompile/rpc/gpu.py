"""``Driver`` for a GPU behind TVM's RPC: each of its calls is a call there. The server needs TVM and NVIDIA's driver.

What is sent is a library of small functions, made here for the server's CPU. One opens the driver's library for the
whole process there; the others call what it exports, with integers as they are, and buffers for what is pointed to.
"""

from __future__ import annotations

import contextlib
import ctypes
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.ir import GlobalVar, IRModule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.target import Target as TVMTarget

from qcompile.artifact import write_library
from qcompile.errors import QCompileError
from qcompile.passes.kernel_calls import address
from qcompile.rpc.machine import architecture_of
from qcompile.rpc.places import Place
from qcompile.runtime.driver import Driver
from qcompile.targets.kernels import builder as b

_OPEN, _WORDS, _LAUNCH = "open", "words", "cuLaunchKernel"
_NOW_GLOBAL = 0x102  # RTLD_NOW | RTLD_GLOBAL
_WORD_BYTES = 100
_MOST_ARGUMENTS = 16  # of a kernel
# The driver's functions: an integer (i) or a buffer (b) for each argument.
_FUNCTIONS = {
    **{
        "cuInit": "i",
        "cuDriverGetVersion": "b",
        "cuGetErrorName": "ib",
        "cuDeviceGetCount": "b",
        "cuDeviceGet": "bi",
        "cuDeviceGetName": "bii",
    },
    **{"cuDeviceGetAttribute": "bii", "cuDevicePrimaryCtxRetain": "bi", "cuCtxSetCurrent": "i"},
    **{"cuModuleLoadData": "bb", "cuModuleUnload": "i", "cuModuleGetFunction": "bib", "cuFuncSetAttribute": "iii"},
    **{"cuMemAlloc_v2": "bi", "cuMemFree_v2": "i", "cuMemcpyHtoDAsync_v2": "ibii", "cuMemcpyDtoHAsync_v2": "biii"},
    **{"cuStreamCreate": "bi", "cuStreamSynchronize": "i", "cuStreamBeginCapture_v2": "ii"},
    **{"cuStreamEndCapture": "ib", "cuGraphInstantiateWithFlags": "bii", "cuGraphDestroy": "i"},
    **{"cuGraphLaunch": "ii", "cuGraphExecDestroy": "i", "cuEventCreate": "bi", "cuEventRecord": "ii"},
    **{"cuEventElapsedTime": "bii", "cuEventDestroy_v2": "i"},
}


@contextlib.contextmanager
def remote_driver(place: Place, library: str, seconds: float) -> Iterator[Driver]:
    """The driver at a place, for so many seconds at most. library: its name there, "libcuda.so.1".

    Raises ``QCompileError`` where there is no driver, or no GPU.
    """
    with place.session(seconds) as session, tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
        yield RemoteDriver(session, library, Path(folder))


class RemoteDriver(Driver):
    """See the module's docstring."""

    def __init__(self, session: Any, library: str, folder: Path):
        self._session, self._device = session, session.cpu(0)
        triple = f"{architecture_of(session) or 'x86_64'}-linux-gnu"
        opener = self._loaded(IRModule({GlobalVar(_OPEN): _open()}), folder / "open.so", triple)
        result = self._on_device(np.zeros(1, np.int64))
        opener[_OPEN](self._text(library), result)
        if not result.numpy()[0]:
            raise QCompileError(
                f"the machine has no NVIDIA driver ({library})", remedy="name one that has an NVIDIA GPU"
            )
        functions = {name: _function(name, kinds) for name, kinds in _FUNCTIONS.items()}
        functions |= {_WORDS: _function("strncpy", "bii", _WORDS), _LAUNCH: _launch()}
        self._functions = self._loaded(
            IRModule({GlobalVar(name): function for name, function in functions.items()}), folder / "driver.so", triple
        )
        super().__init__(None)  # type: ignore[arg-type]

    def to_device(self, pointer: int, host: int, size: int, stream: int) -> None:
        data = np.frombuffer(ctypes.string_at(host, size), np.uint8)
        self._called("cuMemcpyHtoDAsync_v2", pointer, self._on_device(data), size, stream)
        self.wait(stream)  # the copy here is gone when this returns

    def to_host(self, host: int, pointer: int, size: int, stream: int) -> None:
        data = self._on_device(np.zeros(size, np.uint8))
        self._called("cuMemcpyDtoHAsync_v2", data, pointer, size, stream)
        self.wait(stream)
        _copy(data, host, size)

    def launch(self, function: int, grid: int, block: int, shared: int, stream: int, arguments: Sequence[int]) -> None:
        packed = np.zeros(_MOST_ARGUMENTS, np.uint64)
        packed[: len(arguments)] = arguments
        size = self._on_device(np.array([8 * len(arguments)], np.int64))
        self._called(_LAUNCH, function, grid, block, shared, stream, self._on_device(packed.view(np.int64)), size)

    def _result(self, name: str, arguments: Sequence[Any]) -> int:
        """Calls a function of the driver with ctypes' values; what is pointed to is sent there and fetched again."""
        values: list[Any] = []
        sent: list[tuple[Any, Any]] = []
        for argument in arguments:
            inner = getattr(argument, "_obj", argument)  # of byref
            if inner is argument and not isinstance(argument, ctypes.Array):
                values.append(argument.value or 0)
                continue
            tensor = self._on_device(np.frombuffer(bytes(inner), np.uint8))
            values.append(tensor)
            sent.append((inner, tensor))
        result = self._code(name, values)
        for inner, tensor in sent:
            _copy(tensor, ctypes.addressof(inner), ctypes.sizeof(inner))
        return result

    def _error_name(self, result: int) -> str:
        place = self._on_device(np.zeros(8, np.uint8))
        self._code("cuGetErrorName", [result, place])
        at = int(place.numpy().view(np.int64)[0])
        if not at:
            return ""
        words = self._on_device(np.zeros(_WORD_BYTES, np.uint8))
        self._code(_WORDS, [words, at, _WORD_BYTES - 1])
        return words.numpy().tobytes().split(b"\0")[0].decode()

    def _called(self, name: str, *values: Any) -> None:
        self._check(name, self._code(name, values))

    def _code(self, name: str, values: Sequence[Any]) -> int:
        result = self._on_device(np.zeros(1, np.int32))
        self._functions[name](*values, result)
        return int(result.numpy()[0])

    def _text(self, text: str) -> Any:
        return self._on_device(np.frombuffer(text.encode() + b"\0", np.uint8))

    def _on_device(self, array: np.ndarray) -> Any:
        """In the memory of the CPU there."""
        return tvm.runtime.tensor(array if array.size else np.zeros(1, array.dtype), self._device)

    def _loaded(self, module: IRModule, library: Path, triple: str) -> Any:
        write_library(tvm.compile(module, TVMTarget({"kind": "llvm", "mtriple": triple})), library, triple)
        self._session.upload(str(library))
        try:
            return self._session.load_module(library.name)
        finally:
            self._session.remove(library.name)


def _copy(tensor: Any, to: int, size: int) -> None:
    array = tensor.numpy()
    ctypes.memmove(to, array.ctypes.data, size)


def _open() -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(_OPEN)
        size = T.int64()
        path = T.arg("path", T.buffer((size,), "uint8"))
        result = T.arg("result", T.buffer((1,), "int64"))
        T.buffer_store(result, T.bind(T.call_extern("int64", "dlopen", address(path, 0), _NOW_GLOBAL)), [0])
    return builder.get()


def _function(name: str, kinds: str, called: str = "") -> tirx.PrimFunc:
    """``called(arguments..., result)``: calls ``name``."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(called or name)
        values = []
        for i, kind in enumerate(kinds):
            if kind == "i":
                values.append(T.arg(f"a{i}", T.int64()))
            else:
                size = T.int64()
                values.append(address(T.arg(f"a{i}", T.buffer((size,), "uint8")), 0))
        result = T.arg("result", T.buffer((1,), "int32"))
        T.buffer_store(result, T.bind(T.call_extern("int32", name, *values)), [0])
    return builder.get()


def _launch() -> tirx.PrimFunc:
    """``cuLaunchKernel`` of one-dimensional grids, arguments packed: ``extra`` names them and their size."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(_LAUNCH)
        function, grid, block, shared, stream = (
            T.arg(n, T.int64()) for n in ("function", "grid", "block", "shared", "stream")
        )
        packed = T.arg("packed", T.buffer((_MOST_ARGUMENTS,), "int64"))
        size = T.arg("size", T.buffer((1,), "int64"))
        result = T.arg("result", T.buffer((1,), "int32"))
        extra = b.registers(5, "int64")
        for i, value in enumerate((1, _integer(packed), 2, _integer(size), 0)):
            T.buffer_store(extra, tirx.const(value, "int64") if isinstance(value, int) else value, [i])
        one, none = tirx.const(1, "int64"), tirx.const(0, "int64")
        shape = (grid, one, one, block, one, one, shared)
        done = T.call_extern("int32", _LAUNCH, function, *shape, stream, none, address(extra, 0))
        T.buffer_store(result, T.bind(done), [0])
    return builder.get()


def _integer(buffer: tirx.Buffer) -> tirx.Expr:
    """The address of a buffer, by a function of libc that returns where it would have gone on writing."""
    start = address(buffer, 0)
    return T.bind(T.call_extern("int64", "stpncpy", start, start, tirx.const(0, "int64")))
