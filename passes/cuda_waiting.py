"""Tensors that a GPU need not store: what only moves elements, or has one reader, is computed where it is read.

::

    s = split(qkv);  r = reshape(s[0]);  q = permute_dims(r);  y = matmul(q, k)        one kernel, that reads qkv

Only kernels of loop nests read so; for any other reader the tensor is made after all, as that reader wants it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import relax, te, tirx
from tvm.tirx import PrimFunc

from qcompile.passes.base import dtype_of, op_name, shape_of
from qcompile.targets.cuda.nests import is_cheap, read_nests

if TYPE_CHECKING:
    from qcompile.passes.lower_cuda import CudaLowering

# What loop nests are made of, which write any type.
NESTS = ("call_tir", "reshape", "squeeze", "expand_dims", "flatten", "permute_dims", "strided_slice")


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """What makes a tensor. function: its inputs, then its results. name: of its kernel, for reports."""

    function: PrimFunc
    args: tuple[relax.Expr, ...]
    name: str


def waits(lowering: CudaLowering, var: relax.Var, made: Waiting) -> bool:
    """Notes what makes ``var``, if that may be computed where it is read."""
    if var in lowering.outputs or len(made.function.params) != len(made.args) + 1:
        return False
    nests, users = read_nests(made.function), lowering.users[var]
    if nests is None or any(nest.reduced for nest in nests) or len(users) != 1:
        return False
    reader = lowering.definitions[users[0]]
    readers = read_nests(lowering.module[reader.args[0]]) if op_name(reader) == "call_tir" else None
    if readers is None:
        return False
    # A product reads each element again for every tile.
    often = any(nest.reduced and isinstance(nest.value, tirx.Mul) for nest in readers)
    if often and not all(is_cheap(nest.value) for nest in nests):
        return False
    lowering.waiting[var] = made
    return True


def moves_later(
    lowering: CudaLowering, var: relax.Var, x: relax.Expr, move: Callable[[te.Tensor], te.Tensor], name: str
) -> None:
    """Notes that ``var`` is ``move`` of x."""
    tensor = te.placeholder(shape_of(x), dtype_of(x), "x")
    lowering.waiting[var] = Waiting(te.create_prim_func([tensor, move(tensor)]), (x,), name)
