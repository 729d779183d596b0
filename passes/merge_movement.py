"""Chains of reshapes, transposes and slices that together pick a slice along one axis, as that slice."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.passes.base import Draft, local_pass, op_name, shape_of
from qcompile.passes.remove_identities import permutation

MOVES = ("reshape", "permute_dims", "strided_slice")


@local_pass("MergeMovement")
def merge_movement(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """A channel shuffle of which each half is used for itself (ShuffleNetV2) takes every second channel::

        a = permute_dims(reshape(x, (N * C / 2, 2, H * W)), (1, 0, 2))
        b = strided_slice(reshape(a, (2, N, C / 2, H, W)), axes=[0], begin=[i], end=[i + 1])
        y = reshape(b, (N, C / 2, H, W))
                            ->    y = strided_slice(x, axes=[1], begin=[i], end=[C], strides=[2])

    It is found by moving the numbers of elements: whatever chain has the same result as a slice is that slice, and one
    that puts every element back is nothing.
    """
    if op_name(value) not in MOVES:
        return None
    chain, source = [value], value.args[0]
    best = None
    while op_name(draft.definition(source)) in MOVES:
        chain.append(draft.definition(source))
        source = chain[-1].args[0]
        if any(op_name(call) == "strided_slice" for call in chain):
            found = as_slice(source, chain)
            best = best if found is None else found
    return best


def as_slice(source: relax.Expr, chain: list[relax.Call]) -> relax.Expr | None:
    """What a chain of calls (the last first) picks from ``source`` along one axis; None if it does anything else."""
    before, after = shape_of(source), shape_of(chain[0])
    if len(before) != len(after) or sum(b != a for b, a in zip(before, after, strict=True)) > 1 or 0 in after:
        return None
    numbers = np.arange(np.prod(before)).reshape(before)
    moved = numbers
    for call in reversed(chain):
        moved = move(call, moved)
    if before == after:
        return source if np.array_equal(moved, numbers) else None
    axis = next(i for i, (b, a) in enumerate(zip(before, after, strict=True)) if b != a)
    picked = [
        int(np.unravel_index(n, before)[axis]) for n in np.moveaxis(moved, axis, 0).reshape(after[axis], -1)[:, 0]
    ]
    stride = picked[1] - picked[0] if len(picked) > 1 else 1
    if stride < 1 or not np.array_equal(moved, numbers.take(picked, axis)) or set(np.diff(picked)) - {stride}:
        return None
    return relax.op.strided_slice(source, [axis], [picked[0]], [picked[-1] + 1], [stride])


def move(call: relax.Call, x: np.ndarray) -> np.ndarray:
    """numpy's meaning of a call that moves elements."""
    if op_name(call) == "permute_dims":
        return x.transpose(permutation(call))
    if op_name(call) == "strided_slice":
        axes, begin, end = ([int(n) for n in arg.fields] for arg in call.args[1:4])
        strides = [int(n) for n in call.args[4].fields] if len(call.args) > 4 else [1] * len(axes)
        index = [slice(None)] * x.ndim
        for axis, *bounds in zip(axes, begin, end, strides, strict=True):
            index[axis] = slice(*bounds)
        return x[tuple(index)]
    return x.reshape(shape_of(call))
