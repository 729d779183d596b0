"""How one TIR function calls another: kernels over bare pointers, and the places in memory that are passed to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.ir import Call, GlobalVar, PointerType, PrimType
from tvm.script.ir_builder import tirx as T

from qcompile.passes.runtime_calls import runtime_calls

_CPU = 1  # kDLCPU


def private(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """A kernel over buffers as one over bare pointers, which another function may call."""
    pointers, declarations = [], []
    for buffer in function.params:
        pointer = tirx.Var(buffer.name, PointerType(buffer.ty.dtype, "global"))
        pointers.append(pointer)
        declarations.append(tirx.DeclBuffer(buffer, data=pointer))
    done = tirx.Return(tirx.IntImm("int32", 0))  # a failed allocation returns -1 instead
    body: tirx.Stmt = tirx.SeqStmt([*declarations, function.body, done])
    for key, value in (("device_id", 0), ("device_type", _CPU)):  # where large temporaries are allocated
        body = tirx.AttrStmt("default", key, tirx.IntImm("int32", value), body)
    return tirx.PrimFunc(pointers, body, PrimType("int32"), function.attrs).without_attr("global_symbol")


def address(buffer: tirx.Buffer, offset: Any) -> tirx.Expr:
    """A pointer to the byte ``offset`` (an int or a TIR expression) of a buffer."""
    start = T.address_of(buffer[(0,) * len(buffer.ty.shape)])
    pointer = T.reinterpret("handle", start)
    return pointer if isinstance(offset, int) and not offset else T.handle_add_byte_offset(pointer, offset)


def call_kernel(gvar: GlobalVar, kernel: tirx.PrimFunc, args: Sequence[tirx.Expr]) -> None:
    """Emits the call; one that may fail is followed by the check that it did not."""
    call = Call(gvar, list(args), ret_ty="int32")
    if not runtime_calls(kernel):
        T.evaluate(call)
        return
    done = T.bind(call)
    with T.Assert(done == 0, f"{gvar.name_hint} failed"):
        pass
