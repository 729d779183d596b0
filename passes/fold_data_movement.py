"""Operators that move elements act on codes: ``dequantize`` moves behind them."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph
from qcompile.graph import MainBuilder
from qcompile.ops import Affine
from qcompile.passes.base import module_pass, op_name, with_args
from qcompile.passes.movement import moves
from qcompile.passes.quantized import affine_of, dequantize
from qcompile.reference.arithmetic import quantize as encode

Coded = dict[relax.Expr, tuple[relax.Expr, Affine]]


def _run(module: IRModule) -> IRModule:
    """``dequantize`` moves behind operators that only move elements, and behind concat of equal codes::

        y = reshape(dequantize(q, s, z))    ->    y = reshape(q)
                                                  y.dq = dequantize(y, s, z)

    So it goes for permute_dims, slices, split, flip, tile, max and max_pool2d, pad by zero (by the zero point, then),
    nearest resize, take by constant indices.
    What read y reads y.dq. A relu or clip is no move: it has codes of its own.
    """
    main = graph.read(module)
    builder = MainBuilder(main.params, module)
    new: dict[relax.Var, relax.Expr] = {}
    coded: Coded = {}  # new variable that is a dequantize -> its codes and their meaning
    splits: Coded = {}  # new variable of a split of codes -> itself, meaning
    for var, value in main.bindings:
        value = graph.substitute(value, new)
        if op_name(value) == "split" and value.args[0] in coded:
            codes, q = coded[value.args[0]]
            new[var] = builder.emit(with_args(value, codes), var.name)
            splits[new[var]] = new[var], q
            continue
        moved = _moved(value, coded, splits)
        if moved is None:
            new[var] = builder.emit(value, var.name)
            q = affine_of(value)
            if q is not None and op_name(value) == "dequantize":
                coded[new[var]] = value.args[0], q
            continue
        result, q = moved
        codes = builder.emit(result, var.name)
        new[var] = builder.emit(dequantize(codes, q), f"{var.name}.dq")
        coded[new[var]] = codes, q
    return builder.module([graph.substitute(out, new) for out in main.outputs])


def _moved(value: relax.Expr, coded: Coded, splits: Coded) -> tuple[relax.Expr, Affine] | None:
    """The same move of codes, and what they mean; None if ``value`` is no move of codes."""
    if isinstance(value, relax.TupleGetItem):
        return (value, splits[value.tuple_value][1]) if value.tuple_value in splits else None
    if op_name(value) == "concat" and isinstance(value.args[0], relax.Tuple):
        parts = [coded.get(part) for part in value.args[0].fields]
        if None in parts or len({q for _, q in parts}) != 1:
            return None
        return with_args(value, relax.Tuple([codes for codes, _ in parts])), parts[0][1]
    if not moves(value) or value.args[0] not in coded:
        return None
    codes, q = coded[value.args[0]]
    if op_name(value) == "nn.pad" and str(value.attrs.pad_mode) == "constant":
        zero = float(encode(np.array(float(value.attrs.pad_value)), q))
        return relax.op.nn.pad(codes, list(value.attrs.pad_width), "constant", zero), q
    return with_args(value, codes, *value.args[1:]), q


fold_data_movement: tvm.ir.transform.ModulePass = module_pass("FoldDataMovement", _run, _run.__doc__)
