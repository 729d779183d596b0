"""A scale of a whole tensor moves up to the layer that made it: the ``1 / sqrt(d)`` of attention."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.passes import channels
from qcompile.passes.base import Draft, array, dtype_of, local_pass, op_name, refused, shape_of, with_args
from qcompile.passes.fold_scale_shift import find_layer

MOVES = ("reshape", "permute_dims")


@local_pass("HoistScales")
def hoist_scales(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """``matmul(permute_dims(reshape(x @ w + b)), k) * c``  ->  ``matmul(permute_dims(reshape(x @ (w c) + b c)), k)``

    for one number c, through reshapes, transposes and the left side of matrix products that nothing else reads. All but
    the last keep their names, although their values are scaled.
    """
    c = scale_of(value)
    if c is None:
        return None
    path = path_to_layer(draft, value.args[0])
    if isinstance(path, str):
        return refused(name, path) if path else None
    *movers, end = path
    x = scaled_layer(draft, end, c)
    for var in reversed(movers[1:]):
        x = draft.emit(_on(draft.definition(var), x), var.name)
    return _on(draft.definition(movers[0]), x)


def scale_of(value: relax.Expr) -> float | None:
    """The number that ``value`` multiplies a tensor by, None if it does anything else."""
    if op_name(value) not in ("multiply", "divide") or dtype_of(value) != "float32":
        return None
    c = array(value.args[1])
    if c is None or c.size != 1 or shape_of(value) != shape_of(value.args[0]) or float(c.flat[0]) == 0:
        return None
    return float(c.flat[0]) if op_name(value) == "multiply" else 1 / float(c.flat[0])


def path_to_layer(draft: Draft, expr: relax.Expr) -> list[relax.Var] | str:
    """From ``expr`` up to a layer's last operator; or why there is none ("" if it ends at something else)."""
    path: list[relax.Var] = []
    while (value := draft.definition(expr)) is not None:
        path.append(expr)
        layer = find_layer(draft, expr)
        if layer is not None:
            if len(path) == 1:
                return ""  # directly behind the layer: not for this pass
            if not layer.single_use:
                return "the layer's result has another use"
            reason = channels.why_not(layer.call)
            return path if reason is None else reason
        if op_name(value) not in (*MOVES, "matmul"):
            return ""
        if draft.uses(expr) != 1:
            return "a tensor between the layer and the scale has another use"
        expr = value.args[0]
    return ""


def scaled_layer(draft: Draft, end: relax.Var, c: float) -> relax.Var:
    """A layer that gives ``c`` times the tensor ``end``, which a layer gives now."""
    layer = find_layer(draft, end)
    scale = np.full(channels.out_channels(layer.call), c)
    scaled = draft.emit(channels.scale_outputs(layer.call, scale), layer.var.name)
    if layer.bias is None:
        return scaled
    return draft.emit(relax.op.add(scaled, channels.bias(layer.bias * c, layer.call)), end.name)


def _on(call: relax.Call, x: relax.Expr) -> relax.Call:
    return with_args(call, x, *call.args[1:])
