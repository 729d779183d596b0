"""Temporaries of a scheduled PrimFunc go on the stack: TVM would allocate each of them on the heap, for every row.

::

    for i:                                       e = alloc(128, stack)
        e = alloc(64, 128)                       s = alloc(1, stack)
        for j: e[i, j] = ...               ->    for i:
        s = alloc(64)                                for j: e[j] = ...
        for k: s[i] += e[i, k]                       for k: s[0] += e[k]

These are the first half of TVM's own lowering passes and StorageRewrite, which moves allocations outwards and lets
buffers share memory; the build must switch it off (``qcompile.compile``), as it would do the same to register tiles.
"""

from __future__ import annotations

from math import prod

import tvm
from tvm import s_tir, tirx
from tvm.ir import IRModule

_STACK_BYTES = 32 << 10  # of a function; larger temporaries stay on the heap

_FLATTEN = tvm.ir.transform.Sequential(
    [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StorageRewrite(),
    ]
)


def with_stack_memory(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """A scheduled function, its loops and indices made flat, with its small temporaries on the stack.

    The same function where the build, which runs these passes again, could not: they refuse some vector indices.
    """
    flat = _FLATTEN(IRModule({"main": function}))["main"]
    try:
        _FLATTEN(IRModule({"main": flat}))
    except RuntimeError:
        return function
    if not isinstance(flat.body, tirx.SeqStmt):
        return flat
    room = _STACK_BYTES
    statements = []
    for statement in flat.body.seq:
        if isinstance(statement, tirx.AllocBuffer) and _nbytes(statement.buffer) <= room:
            room -= _nbytes(statement.buffer)
            statement = tirx.AllocBuffer(statement.buffer, {"disable_lower_builtin": tirx.IntImm("bool", 1)})
        statements.append(statement)
    return flat.with_body(tirx.SeqStmt(statements))


def _nbytes(buffer: tirx.Buffer) -> int:
    return prod(int(extent) for extent in buffer.shape) * buffer.dtype.itemsize
