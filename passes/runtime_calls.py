"""Functions of TVM's runtime that generated code calls by name."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, IRModule, Op

from qcompile.errors import QCompileError

_PACKED = {Op.get("tirx.tvm_call_packed"), Op.get("tirx.tvm_call_cpacked")}


def runtime_calls(function: tirx.PrimFunc) -> tuple[str, ...]:
    """Names of the runtime's functions that a kernel calls, in order, once each."""
    names: dict[str, None] = {}

    def visit(call: Call) -> None:
        if call.op in _PACKED:
            names.setdefault(str(call.args[0].value))

    tvm_ffi.structural_walk(function.body, (Call, visit))
    return tuple(names)


def check_runtime_calls(module: IRModule) -> None:
    """QCompileError for a kernel that calls the runtime: an artifact has all the code that it needs."""
    for _, function in module.functions_items():
        for name in runtime_calls(function) if isinstance(function, tirx.PrimFunc) else ():
            raise QCompileError(
                f"TVM computes it by calling '{name}' of its runtime, which is not there where a model is loaded",
                node=str(function.attrs.get("global_symbol", "")) or None,
                remedy="cut the operator off, or please report the model",
            )
