"""Which variable of the original ``main`` each variable holds after TVM's FuseOps, which renames what it groups.

``before`` is interpreted symbolically: every binding has a key (operator or kernel, and which values it reads). In
``after``, the same keys appear in the same order, some of them inside grouped functions; walking those as if they were
inlined finds, for each variable, the original one with its key.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from tvm import relax
from tvm.ir import GenericConst, GlobalVar, IRModule

from qcompile import graph

Value = Any  # an original variable, or for anything else a hashable stand-in


def names_after_fusion(before: IRModule, after: IRModule) -> list[str]:
    """The name for each binding of ``after``'s main, in order: the original one where the value is known, else its own.

    Bindings of a variable to a variable are left out: FuseTIR removes them.
    """
    old, new = graph.read(before), graph.read(after)
    originals: dict[Value, deque[relax.Var]] = defaultdict(deque)
    identity: dict[relax.Var, Value] = {param: param for param in old.params}
    for var, value in old.bindings:
        originals[_key(value, identity)].append(var)
        identity[var] = var
    values: dict[relax.Var, Value] = dict(zip(new.params, old.params, strict=True))
    for var, value in new.bindings:
        values[var] = _evaluate(value, values, originals, after)
    return [
        held.name if isinstance(held := values[var], relax.Var) else var.name
        for var, value in new.bindings
        if not isinstance(value, relax.Var)
    ]


def _evaluate(
    value: relax.Expr, values: dict[relax.Var, Value], originals: dict[Value, deque[relax.Var]], module: IRModule
) -> Value:
    """The original variable (or tuple of them) that an expression of the fused graph equals."""
    if isinstance(value, relax.Call) and isinstance(value.op, GlobalVar) and value.op in module.functions:
        function = module[value.op]
        inner = {p: _identify(arg, values) for p, arg in zip(function.params, value.args, strict=True)}
        for block in function.body.blocks:
            for binding in block.bindings:
                inner[binding.var] = _evaluate(binding.value, inner, originals, module)
        return _identify(function.body.body, inner)
    if isinstance(value, relax.TupleGetItem):
        whole = _identify(value.tuple_value, values)
        if isinstance(whole, tuple):
            return whole[value.index]
    if isinstance(value, (relax.Var, relax.Tuple)):
        return _identify(value, values)
    key = _key(value, values)
    return originals[key].popleft() if originals.get(key) else key


def _key(value: relax.Expr, values: dict[relax.Var, Value]) -> Value:
    if isinstance(value, relax.Call):
        operator = value.op.name if hasattr(value.op, "name") else str(value.op)
        return (operator, str(value.ty), *(_identify(arg, values) for arg in value.args))
    if isinstance(value, relax.TupleGetItem):
        return ("get", _identify(value.tuple_value, values), value.index)
    return _identify(value, values)


def _identify(expr: relax.Expr, values: dict[relax.Var, Value]) -> Value:
    if isinstance(expr, relax.Var):
        return values.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        return tuple(_identify(field, values) for field in expr.fields)
    if isinstance(expr, GlobalVar):
        return expr.name_hint
    if isinstance(expr, GenericConst):
        return expr  # hashed by address: fusion passes the same constant on
    return str(expr)
