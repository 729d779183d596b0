"""LSTM, GRU and RNN: one matrix product of the inputs of all steps, and a kernel that goes through the steps.

::

    Y, Y_h = LSTM(X, W, R, B)   ->   x = matmul(X as rows, W for all directions) + (Wb + Rb)     may be int8
                                     Y, Y_h = call_tir(lstm, (x, R, zeros, zeros))              float32
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from tvm import relax

from qcompile.frontend.context import NodeContext, Result
from qcompile.targets.kernels.recurrent import ACTIVATIONS, FUNCTIONS, Activation, Cell, recurrent

_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_PARAMETERS = {  # default alpha and beta; None: no such parameter
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "Affine": (1.0, 0.0),
    "ScaledTanh": (1.0, 1.0),
    "Elu": (1.0, None),
}
X, W, R, B, LENGTHS, H0, C0, P = range(8)


def recurrent_layer(ctx: NodeContext) -> Result:
    """Y (steps, directions, batch, hidden), Y_h and of an LSTM Y_c; ``layout`` 1 has the batch first."""
    batch_first, kind = bool(ctx.get("layout", 0)), ctx.node.op_type
    x = _swapped(ctx, ctx.value(X), (1, 0, 2)) if batch_first else ctx.value(X)
    steps, batch, width = _shape(x)
    cell = _cell(ctx)
    size, directions, wide = cell.size, len(cell.reverse), cell.columns
    w, r = (_swapped(ctx, ctx.value(i), order) for i, order in ((W, (2, 0, 1)), (R, (0, 2, 1))))
    rows = relax.op.reshape(ctx.as_expr(x), (steps * batch, width))
    products = relax.op.matmul(rows, ctx.as_expr(_reshaped(w, (width, directions * wide))))
    added, inside = _biases(ctx, cell)
    if added is not None:
        products = relax.op.add(products, ctx.as_expr(added))
    operands: dict[str, Any] = {"r": r, "rb": inside, "p": ctx.inputs[P] if ctx.has(P) else None}
    for name, index in (("h0", H0), ("c0", C0)):
        state = ctx.value(index) if ctx.has(index) else np.zeros((directions, batch, size), np.float32)
        operands[name] = _swapped(ctx, state, (1, 0, 2)) if batch_first and ctx.has(index) else state
    operands["lengths"] = _lengths(ctx, steps)
    lengths = operands["lengths"] is not None
    function = recurrent(cell, steps, batch, lengths)
    shapes = {"y": (steps, directions, batch, size), "scratch": (cell.scratch,)}
    types = [relax.TensorType(shapes.get(name, (directions, batch, size)), "float32") for name in cell.results()]
    arguments = [products, *(ctx.as_expr(operands[name]) for name in cell.operands(lengths))]
    call = ctx.emit.call_function(function, kind.lower(), arguments, types)
    results: list[Any] = [relax.TupleGetItem(call, i) for i in range(len(types) - 1)]
    if batch_first:
        orders = ((2, 0, 1, 3), (1, 0, 2), (1, 0, 2))
        results = [relax.op.permute_dims(v, o) for v, o in zip(results, orders, strict=False)]
    return results


def _cell(ctx: NodeContext) -> Cell:
    kind, direction = ctx.node.op_type, ctx.get("direction", "forward")
    reverse = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(direction)
    if reverse is None:
        raise ctx.unsupported(f"direction {direction!r}")
    if ctx.dtype(X) != "float32":
        raise ctx.unsupported(f"a recurrent layer of {ctx.dtype(X)}")
    size = ctx.shape(R)[-1]
    if ctx.shape(R)[0] != len(reverse):
        raise ctx.fail(f"its weights are for {ctx.shape(R)[0]} directions, it has {len(reverse)}", "export it again")
    return Cell(
        kind,
        size,
        reverse,
        _functions(ctx, kind, len(reverse)),
        float(ctx.get("clip", 0.0)) or inf,
        peepholes=kind == "LSTM" and ctx.has(P),
        coupled=bool(ctx.get("input_forget", 0)),
        reset_after=kind == "GRU" and bool(ctx.get("linear_before_reset", 0)),
    )


def _functions(ctx: NodeContext, kind: str, directions: int) -> tuple[tuple[Activation, ...], ...]:
    """Activations by direction; parameters are listed for those functions only that have them."""
    names = ctx.get("activations") or list(_DEFAULTS[kind]) * directions
    alphas, betas = (iter(ctx.get(f"activation_{which}") or ()) for which in ("alpha", "beta"))
    functions = []
    for name in names:
        known = next((n for n in ACTIVATIONS if n.lower() == str(name).lower()), None)
        if known is None:
            raise ctx.unsupported(f"activation {name}")
        alpha, beta = _PARAMETERS.get(known, (None, None))
        functions.append(
            Activation(
                known,
                0.0 if alpha is None else float(next(alphas, alpha)),
                0.0 if beta is None else float(next(betas, beta)),
            )
        )
    each = FUNCTIONS[kind]
    if len(functions) != each * directions:
        raise ctx.fail(f"it has {len(functions)} activations, not {each * directions}", "mend or re-export the model")
    return tuple(tuple(functions[i * each : (i + 1) * each]) for i in range(directions))


def _biases(ctx: NodeContext, cell: Cell) -> tuple[Any, Any]:
    """What is added to the inputs' products (directions * columns,), and what a GRU's reset gate multiplies as well."""
    directions, wide, size = len(cell.reverse), cell.columns, cell.size
    if not ctx.has(B):
        return None, np.zeros((directions, size), np.float32) if cell.reset_after else None
    both = ctx.constant(B, "bias").reshape(directions, 2, wide)
    added, inside = both.sum(axis=1), None
    if cell.reset_after:
        added[:, 2 * size :], inside = both[:, 0, 2 * size :], both[:, 1, 2 * size :]
    return added.reshape(-1).astype(np.float32), inside


def _lengths(ctx: NodeContext, steps: int) -> Any:
    """None where all samples have all steps."""
    lengths = ctx.inputs[LENGTHS] if ctx.has(LENGTHS) else None
    if isinstance(lengths, np.ndarray):
        return None if (lengths >= steps).all() else lengths.astype(np.int32)
    return lengths


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if isinstance(value, np.ndarray) else tuple(int(d) for d in value.ty.shape.values)


def _swapped(ctx: NodeContext, value: Any, order: tuple[int, ...]) -> Any:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value.transpose(order))
    return ctx.emit.emit(relax.op.permute_dims(value, order))


def _reshaped(value: Any, shape: tuple[int, ...]) -> Any:
    return value.reshape(shape) if isinstance(value, np.ndarray) else relax.op.reshape(value, shape)


CONVERTERS = dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent_layer)
