"""The TVM runtime in this process: loading libraries, and the thread pool that their parallel loops use."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import tempfile
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompile.errors import QCompileError

if TYPE_CHECKING:
    from tvm_ffi import Module

_RUNTIME = "libtvm_runtime.so"
_BIG_CORES = 1  # tvm::runtime::threading::ThreadGroup::kBig: all cores of a machine whose cores are alike
_pool = threading.local()  # TVM keeps one pool a thread; threads: what ours is configured for


def load_library(path: Path) -> Module:
    """Loads generated code. Neither ``import tvm`` nor its compiler library is needed."""
    _load_runtime()
    import tvm_ffi

    try:
        with tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
            # The loader takes a path that it knows for the library that it loaded from there, even if the artifact was
            # replaced since; so each load has a path of its own.
            link = Path(folder) / path.name
            link.symlink_to(path.resolve())
            return tvm_ffi.load_module(str(link))
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise QCompileError(f"cannot be loaded: {reason}", node=str(path), remedy="build the model again") from None


@cache
def _load_runtime() -> None:
    """Makes the functions of TVM's runtime visible to libraries that are loaded later."""
    try:
        import tvm_ffi  # noqa: F401  (loads libtvm_ffi.so, which the runtime needs)
    except ImportError:
        raise QCompileError("the TVM runtime is missing", remedy="pip install apache-tvm-ffi apache-tvm") from None
    spec = importlib.util.find_spec("tvm")
    library = Path(spec.origin).parent / "lib" / _RUNTIME if spec and spec.origin else None
    if library is None or not library.exists():
        raise QCompileError("the TVM runtime is missing", node=_RUNTIME, remedy="pip install apache-tvm")
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def use_threads(count: int) -> None:
    """Lets parallel loops that this thread starts run on ``count`` threads; cheap when nothing changes.

    TVM starts a pool for each thread that runs parallel loops, as large as TVM_NUM_THREADS says at that moment, and a
    pool cannot grow. Its threads are pinned to cores only if TVM_BIND_THREADS=1 is set: pinning moves the caller too.
    """
    if getattr(_pool, "threads", None) == count:
        return
    import tvm_ffi

    os.environ.setdefault("TVM_BIND_THREADS", "0")
    if int(os.environ.get("TVM_NUM_THREADS") or 0) < count:
        os.environ["TVM_NUM_THREADS"] = str(count)
    tvm_ffi.get_global_func("runtime.config_threadpool")(_BIG_CORES, count)
    got: Any = tvm_ffi.get_global_func("runtime.NumThreads")()
    if got < count:
        warnings.warn(
            f"runs on {got} threads, not {count}: this thread's pool is already started; load the library with the most"
            " threads first, or set TVM_NUM_THREADS",
            stacklevel=3,
        )
    _pool.threads = count
