"""Functions of TVM's runtime that generated code calls by name, and the libraries that have them."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, IRModule, Op

from qcompile.errors import QCompileError

# Beside libtvm_runtime.so, which generated code always finds.
LIBRARIES = {"tvm.contrib.sort.": "libtvm_runtime_extra.so"}
_PACKED = {Op.get("tirx.tvm_call_packed"), Op.get("tirx.tvm_call_cpacked")}


def runtime_calls(function: tirx.PrimFunc) -> tuple[str, ...]:
    """Names of the runtime's functions that a kernel calls, in order, once each."""
    names: dict[str, None] = {}

    def visit(call: Call) -> None:
        if call.op in _PACKED:
            names.setdefault(str(call.args[0].value))

    tvm_ffi.structural_walk(function.body, (Call, visit))
    return tuple(names)


def runtime_libraries(module: IRModule) -> tuple[str, ...]:
    """Names of the files that must be loaded before the code of ``module`` runs.

    QCompileError for a function that is in none of them.
    """
    found = set()
    for _, function in module.functions_items():
        for name in runtime_calls(function) if isinstance(function, tirx.PrimFunc) else ():
            library = next((file for prefix, file in LIBRARIES.items() if name.startswith(prefix)), None)
            if library is None:
                raise QCompileError(
                    f"TVM computes it by calling '{name}', which no library that is loaded with a model has",
                    node=str(function.attrs.get("global_symbol", "")) or None,
                    remedy="cut the operator off, or please report the model",
                )
            found.add(library)
    return tuple(sorted(found))
