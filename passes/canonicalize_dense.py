"""Matrix products with a constant in one form: ``matmul(x, weight (K, N))``, then ``add`` of a bias (N,)."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.passes.base import Draft, array, constant, dtype_of, local_pass, op_name, refused, shape_of, with_args
from qcompile.passes.remove_identities import permutation


@local_pass("CanonicalizeDense")
def canonicalize_dense(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """Drops what stands between a matrix product and its constant weight::

        matmul(x, w (1, K, N))                          ->  matmul(x, w (K, N))      if x has as many axes
        matmul(reshape(permute_dims(x)), w (K, N))      ->  matmul(reshape(x), w with its rows in the other order)

    The second is the end of an image network that was written for NHWC; (M, K) = (N, C * H * W) there.
    """
    if op_name(value) != "matmul" or array(value.args[1]) is None or dtype_of(value) != "float32":
        return None
    x, weight = value.args
    shape = shape_of(weight)
    if len(shape) > 2 and all(extent == 1 for extent in shape[:-2]) and len(shape_of(x)) >= len(shape):
        return with_args(value, x, constant(array(weight).reshape(shape[-2:])))
    flat = draft.definition(x)
    permuted = draft.definition(flat.args[0]) if op_name(flat) == "reshape" else None
    if len(shape) != 2 or op_name(permuted) != "permute_dims":
        return None
    if (reason := judge(draft, flat, permuted)) is not None:
        return refused(name, reason)
    source, axes = permuted.args[0], permutation(permuted)
    extents = [shape_of(source)[axis] for axis in axes[1:]]
    back = np.argsort(axes[1:])  # rows stand in the permuted order; put them in the order of the source
    rows = array(weight).reshape(*extents, shape[1]).transpose(*back, len(back)).reshape(shape)
    reshaped = draft.emit(relax.op.reshape(source, shape_of(x)), draft.step(name, "reshape"))
    return with_args(value, reshaped, constant(rows))


def judge(draft: Draft, flat: relax.Call, permuted: relax.Call) -> str | None:
    """Why the order of rows cannot make up for the transpose, None if it can."""
    if permutation(permuted)[0] != 0 or len(shape_of(flat)) != 2 or shape_of(flat)[0] != shape_of(permuted)[0]:
        return "the transpose is not within what is flattened to rows"
    return None if draft.uses(flat.args[0]) == 1 else "the transposed tensor has another use"
