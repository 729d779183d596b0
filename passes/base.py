"""What the float passes share: one sweep over ``main``, and small questions about expressions.

A local pass is a function ``rewrite(draft, value, name)`` that looks at one binding, and back from it at what its
inputs are bound to. It answers with an expression to bind instead, with an earlier variable (or a constant) to use
instead, or with None: leave it. The sweep keeps names: what a rewrite returns is bound under the name of what it
replaces, and an output of the model always has the name that the model gave it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import GenericConst, IRModule

from qcompile import graph
from qcompile.errors import QCompileError

log = logging.getLogger("qcompile.passes")

# What a pass raises crosses TVM's C++ and comes back as RuntimeError, unless TVM knows the class. It is made anew from
# its message then; ``original_errors`` finds the one that was raised.
tvm_ffi.register_error("QCompileError", QCompileError)
_raised = threading.local()  # error: the last one that left a pass of ours

Rewrite = Callable[["Draft", relax.Expr, str], "relax.Expr | None"]


class Draft:
    """The new graph, as far as it is written.

    names: other names that variables are to have in the end.
    """

    def __init__(self, old: graph.Graph):
        self.params = old.params
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []
        self.names: dict[relax.Var, str] = {}
        self._definitions: dict[relax.Var, relax.Expr] = {}
        self._uses: dict[relax.Var, int] = {}
        self._taken = {var.name for var in (*old.params, *(var for var, _ in old.bindings))}
        self._builder = relax.BlockBuilder()

    def normalize(self, value: relax.Expr) -> relax.Expr:
        """``value`` with its type inferred."""
        return self._builder.normalize(value)

    def emit(self, value: relax.Expr, name: str) -> relax.Var:
        """Binds a flat expression to a new variable of this name."""
        value = self.normalize(value)
        var = relax.DataflowVar(name, value.ty)
        self.bindings.append((var, value))
        self._definitions[var] = value
        return var

    def step(self, name: str, what: str) -> str:
        """A new name for a variable on the way to ``name``: "y~add", as the importer has it, or "y~add_2"."""
        first = f"{name}~{what}"
        unique = next(n for i in count(1) if (n := first if i == 1 else f"{first}_{i}") not in self._taken)
        self._taken.add(unique)
        return unique

    def definition(self, expr: relax.Expr) -> relax.Expr | None:
        """What a variable is bound to; None for a parameter or a constant."""
        return self._definitions.get(expr) if isinstance(expr, relax.Var) else None

    def uses(self, var: relax.Var) -> int:
        """How often the old graph reads a variable, as an output too; 1 for what a rewrite put in between."""
        return self._uses.get(var, 1)

    def replace(self, uses: int, new: relax.Expr) -> None:
        """Notes that ``new`` is read where the old graph read a variable with this many uses."""
        if isinstance(new, relax.Var):
            self._uses[new] = self._uses.get(new, 0) + uses


def sweep(module: IRModule, rewrite: Rewrite) -> IRModule:
    """``main`` with ``rewrite`` tried on every binding, in order, once; the same module if nothing was to do."""
    old = graph.read(module)
    outputs = {o for o in old.outputs if isinstance(o, relax.Var)}
    draft = Draft(old)
    uses = _count_uses(old)
    for param in old.params:
        draft.replace(uses.get(param, 0), param)
    new: dict[relax.Var, relax.Expr] = {}
    taken = {*old.params}  # what an output cannot become: a parameter or another output
    changed = False
    for var, value in old.bindings:
        value = draft.normalize(graph.substitute(value, new))
        result = rewrite(draft, value, var.name)
        if result is not None and var in outputs and not _can_rename(draft, result, taken):
            result = None
        changed |= result is not None
        if result is None:
            result = draft.emit(value, var.name)
        elif not isinstance(result, (relax.Var, GenericConst)):
            result = draft.emit(result, var.name)
        if var in outputs:
            taken.add(result)
            if result.name != var.name:
                draft.names[result] = var.name
        draft.replace(uses.get(var, 0), result)
        new[var] = result
    if not changed:
        return module
    return rebuild(module, draft.params, draft.bindings, [graph.substitute(o, new) for o in old.outputs], draft.names)


def rebuild(
    module: IRModule,
    params: tuple[relax.Var, ...],
    bindings: list[tuple[relax.Var, relax.Expr]],
    outputs: list[relax.Expr],
    names: dict[relax.Var, str] | None = None,
) -> IRModule:
    """``module`` with another ``main``. ``names`` renames variables; what nothing reads is dropped."""
    builder = graph.MainBuilder(params, module)
    final: dict[relax.Var, relax.Expr] = {}
    for var, value in bindings:
        final[var] = builder.emit(graph.substitute(value, final), (names or {}).get(var, var.name))
    return builder.module([graph.substitute(o, final) for o in outputs])


def _can_rename(draft: Draft, result: relax.Expr, taken: set[relax.Expr]) -> bool:
    if isinstance(result, relax.Var):
        return result not in taken
    return not isinstance(result, GenericConst)


def _count_uses(old: graph.Graph) -> dict[relax.Var, int]:
    uses: dict[relax.Var, int] = {}
    for read in [*(v for _, value in old.bindings for v in graph.reads(value)), *old.outputs]:
        uses[read] = uses.get(read, 0) + 1
    return uses


def local_pass(name: str) -> Callable[[Rewrite], tvm.ir.transform.ModulePass]:
    """Makes a module pass of a rewrite function: one sweep."""

    def make(rewrite: Rewrite) -> tvm.ir.transform.ModulePass:
        return module_pass(name, lambda module: sweep(module, rewrite), rewrite.__doc__)

    return make


def module_pass(name: str, run: Callable[[IRModule], IRModule], doc: str | None = None) -> tvm.ir.transform.ModulePass:
    def transform(module: IRModule, _: tvm.ir.transform.PassContext) -> IRModule:
        try:
            return run(module)
        except QCompileError as error:
            _raised.error = error
            raise

    transform.__doc__ = doc
    return tvm.ir.transform.module_pass(transform, opt_level=0, name=name)


@contextmanager
def original_errors() -> Iterator[None]:
    """A QCompileError that a pass raises inside leaves as it was raised, with its ``node`` and ``remedy``."""
    try:
        yield
    except QCompileError as error:
        original = getattr(_raised, "error", None)
        raise original if str(original) == str(error) else error from None
    finally:
        _raised.error = None


def refused(name: str, reason: str) -> None:
    """Logs why a rewrite that nearly applied did not (logger "qcompile.passes", level debug); answers None."""
    log.debug("%s: %s", name, reason)


def op_name(value: relax.Expr | None) -> str:
    """ "nn.conv2d" for a call of ``relax.nn.conv2d``; "" for anything that is not a call of an operator."""
    if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
        return value.op.name.removeprefix("relax.")
    return ""


def with_args(call: relax.Call, *args: relax.Expr) -> relax.Call:
    """The same operator with the same attributes on other arguments."""
    return relax.Call(call.op, list(args), call.attrs, call.ty_args, call.span)


def array(expr: relax.Expr) -> np.ndarray | None:
    """The value of a constant, None for anything else."""
    return expr.value.numpy() if isinstance(expr, GenericConst) else None


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """The static shape of a tensor."""
    return tuple(int(extent) for extent in expr.ty.shape)


def dtype_of(expr: relax.Expr) -> str:
    return str(expr.ty.dtype)


def number(expr: relax.Expr) -> float:
    """The value of a number among the arguments of a call (bounds of a clip)."""
    return float(expr.value)


def constant(value: np.ndarray, dtype: str = "float32") -> GenericConst:
    return relax.const(np.array(value, dtype=dtype, order="C"), dtype)
