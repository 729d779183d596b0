"""The same operator on the same inputs, computed once."""

from __future__ import annotations

from tvm import relax
from tvm.ir import IRModule
from tvm_ffi import structural_equal, structural_hash

from qcompile.passes.base import Draft, module_pass, sweep


def _run(module: IRModule) -> IRModule:
    """``a = f(x); b = f(x)``  ->  ``a = f(x)``, uses of b read a. Two outputs of the model stay two."""
    seen: dict[int, list[relax.Var]] = {}
    indexed = 0

    def rewrite(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
        nonlocal indexed
        for var, earlier in draft.bindings[indexed:]:
            seen.setdefault(structural_hash(earlier), []).append(var)
        indexed = len(draft.bindings)
        same = seen.get(structural_hash(value), ())
        return next((var for var in same if structural_equal(draft.definition(var), value)), None)

    return sweep(module, rewrite)


merge_common_subexpressions = module_pass("MergeCommonSubexpressions", _run)
