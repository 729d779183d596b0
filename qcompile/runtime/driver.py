"""NVIDIA's driver through ctypes: the few calls that running a model takes. Nothing but libcuda.so.1 is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from functools import cache

from qcompile.errors import QCompileError

LIBRARY = "libcuda.so.1"
_NO_DEVICE, _DRIVER_TOO_OLD = 100, 803
_NOT_UNDERSTOOD = (200, 209, 218, 222)  # invalid image, no binary for this GPU, invalid or newer PTX
_MAJOR, _MINOR, _PROCESSORS = 75, 76, 16  # CUdevice_attribute
SHARED = 48 << 10  # bytes of shared memory of a block that need no leave
_MOST_SHARED = 8  # CUfunction_attribute
_CAPTURE_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: memory may be freed meanwhile, which Python does when it likes
_BUFFER, _BUFFER_SIZE, _END = 1, 2, 0  # keys of cuLaunchKernel's ``extra``
_REMEDY = "run it on a machine with an NVIDIA GPU, or build with --target native"


@cache
def open_driver(library: str = LIBRARY) -> Driver:
    """Raises ``QCompileError`` where there is no driver, or no GPU."""
    try:
        return Driver(ctypes.CDLL(library))
    except OSError:
        raise QCompileError("this machine has no NVIDIA driver (libcuda.so.1)", remedy=_REMEDY) from None


def has_gpu() -> bool:
    try:
        open_driver(LIBRARY)
    except QCompileError:
        return False
    return True


class Driver:
    """Calls that raise ``QCompileError`` with the driver's own name of what went wrong; handles are integers."""

    def __init__(self, library: ctypes.CDLL):
        self._cuda = library
        result = self._result("cuInit", (c_uint(0),))
        if result == _NO_DEVICE:
            raise QCompileError("this machine has an NVIDIA driver, but no GPU that it can use", remedy=_REMEDY)
        self._check("cuInit", result)

    @property
    def version(self) -> str:
        """The newest CUDA that the driver knows, "12.8"."""
        number = c_int()
        self._call("cuDriverGetVersion", byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def device(self, number: int) -> int:
        device, count = c_int(), c_int()
        self._call("cuDeviceGetCount", byref(count))
        if not 0 <= number < count.value:
            raise QCompileError(f"no GPU {number}", remedy=f"there are {count.value}, numbered from 0")
        self._call("cuDeviceGet", byref(device), c_int(number))
        return device.value

    def capability(self, device: int) -> tuple[int, int]:
        """Compute capability: (9, 0) of sm_90."""
        return self._attribute(_MAJOR, device), self._attribute(_MINOR, device)

    def processors(self, device: int) -> int:
        """Multiprocessors."""
        return self._attribute(_PROCESSORS, device)

    def name(self, device: int) -> str:
        text = ctypes.create_string_buffer(100)
        self._call("cuDeviceGetName", text, c_int(100), c_int(device))
        return text.value.decode()

    def use_primary_context(self, device: int) -> int:
        """The context that torch and cupy use, too."""
        context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(context), c_int(device))
        self.use(context.value)
        return context.value

    def use(self, context: int) -> None:
        """Makes a context this thread's."""
        self._call("cuCtxSetCurrent", c_void_p(context))

    def load(self, image: bytes) -> int:
        """A module: of a cubin, or of PTX, which the driver compiles."""
        module, held = c_void_p(), ctypes.create_string_buffer(image, len(image))
        result = self._result("cuModuleLoadData", (byref(module), held))
        if result in _NOT_UNDERSTOOD:
            said = self._error_name(result) or result
            raise QCompileError(
                f"the CUDA driver cannot load the code: {said}; it knows CUDA {self.version}",
                remedy="update it, or build with a compiler of that version: QCOMPILE_CUDA_COMPILER=nvrtc12, or =nvcc",
            )
        self._check("cuModuleLoadData", result)
        return module.value

    def unload(self, module: int) -> None:
        self._call("cuModuleUnload", c_void_p(module))

    def function(self, module: int, name: str) -> int:
        function = c_void_p()
        self._call("cuModuleGetFunction", byref(function), c_void_p(module), ctypes.create_string_buffer(name.encode()))
        return function.value

    def allow_shared(self, function: int, size: int) -> None:
        """Lets launches of a function have so many bytes of shared memory; 48 KiB need no leave."""
        self._call("cuFuncSetAttribute", c_void_p(function), c_int(_MOST_SHARED), c_int(size))

    def allocate(self, size: int) -> int:
        pointer = c_uint64()
        self._call("cuMemAlloc_v2", byref(pointer), c_size_t(max(size, 1)))
        return pointer.value

    def free(self, pointer: int) -> None:
        self._call("cuMemFree_v2", c_uint64(pointer))

    def to_device(self, pointer: int, host: int, size: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync_v2", c_uint64(pointer), c_void_p(host), c_size_t(size), c_void_p(stream))

    def to_host(self, host: int, pointer: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync_v2", c_void_p(host), c_uint64(pointer), c_size_t(size), c_void_p(stream))

    def stream(self) -> int:
        """A stream that keeps the order of work on the default one, where torch and cupy work."""
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), c_uint(0))
        return stream.value

    def wait(self, stream: int) -> None:
        self._call("cuStreamSynchronize", c_void_p(stream))

    def launch(self, function: int, grid: int, block: int, shared: int, stream: int, arguments: Sequence[int]) -> None:
        """arguments: pointers, all of them."""
        packed = (c_uint64 * len(arguments))(*arguments)
        size = c_size_t(ctypes.sizeof(packed))
        extra = (c_void_p * 5)(_BUFFER, ctypes.addressof(packed), _BUFFER_SIZE, ctypes.addressof(size), _END)
        sizes = [c_uint(n) for n in (grid, 1, 1, block, 1, 1, shared)]
        self._call("cuLaunchKernel", c_void_p(function), *sizes, c_void_p(stream), None, extra)

    def begin_capture(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", c_void_p(stream), c_int(_CAPTURE_RELAXED))

    def end_capture(self, stream: int) -> int:
        """What was launched on the stream since ``begin_capture``, as a graph that can be launched."""
        graph, executable = c_void_p(), c_void_p()
        self._call("cuStreamEndCapture", c_void_p(stream), byref(graph))
        self._call("cuGraphInstantiateWithFlags", byref(executable), graph, c_uint64(0))
        self._call("cuGraphDestroy", graph)
        return executable.value

    def launch_graph(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", c_void_p(graph), c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", c_void_p(graph))

    def event(self) -> int:
        event = c_void_p()
        self._call("cuEventCreate", byref(event), c_uint(0))
        return event.value

    def record(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", c_void_p(event), c_void_p(stream))

    def microseconds(self, first: int, last: int) -> float:
        """Between two events that have passed."""
        milliseconds = c_float()
        self._call("cuEventElapsedTime", byref(milliseconds), c_void_p(first), c_void_p(last))
        return 1000 * milliseconds.value

    def destroy_event(self, event: int) -> None:
        self._call("cuEventDestroy_v2", c_void_p(event))

    def _attribute(self, which: int, device: int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), c_int(which), c_int(device))
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        self._check(name, self._result(name, arguments))

    def _result(self, name: str, arguments: Sequence[object]) -> int:
        return getattr(self._cuda, name)(*arguments)

    def _error_name(self, result: int) -> str:
        text = c_char_p()
        self._cuda.cuGetErrorName(c_int(result), byref(text))
        return text.value.decode() if text.value else ""

    def _check(self, name: str, result: int) -> None:
        if not result:
            return
        what = self._error_name(result) or f"error {result}"
        remedy = "update the driver" if result == _DRIVER_TOO_OLD else None
        raise QCompileError(f"the CUDA driver failed: {name} said {what}", remedy=remedy)
