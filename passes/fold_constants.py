"""Operators whose inputs are all known at build time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax

from qcompile.passes.base import Draft, array, constant, dtype_of, local_pass, op_name, shape_of
from qcompile.passes.remove_identities import permutation

# Evaluated by numpy, as they mean the same to the bit. All others are compiled.
NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "negative": np.negative,
    "sqrt": np.sqrt,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
RESHAPES = ("reshape", "flatten", "squeeze", "expand_dims", "nn.batch_flatten")
LARGEST_GROWTH = 1 << 16  # elements: a constant that is broadcast beyond this is cheaper to broadcast at run time


@local_pass("FoldConstants")
def fold_constants(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """``y = f(constants)``  ->  uses of y read a constant."""
    if not op_name(value) or not isinstance(value.ty, relax.TensorType) or not is_known(value):
        return None
    size = int(np.prod(shape_of(value)))
    if size > LARGEST_GROWTH and size > sum(int(np.prod(shape_of(c))) for c in tensors(value)):
        return None
    return constant(evaluate(value), dtype_of(value))


def tensors(value: relax.Expr) -> list[relax.Expr]:
    """The tensors among the arguments of a call, those in tuples too."""
    flat = [f for arg in value.args for f in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]
    return [expr for expr in flat if isinstance(getattr(expr, "ty", None), relax.TensorType)]


def is_known(value: relax.Call) -> bool:
    """Whether a call has tensors as arguments, and they are all constants."""
    inputs = tensors(value)
    return bool(inputs) and all(array(expr) is not None for expr in inputs)


def evaluate(value: relax.Call) -> np.ndarray:
    """The value of a call that is known."""
    kind = op_name(value)
    if kind in NUMPY:
        return NUMPY[kind](*[array(arg) for arg in value.args])
    if kind in RESHAPES:
        return array(value.args[0]).reshape(shape_of(value))
    if kind == "permute_dims":
        return array(value.args[0]).transpose(permutation(value))
    if kind == "broadcast_to":
        return np.broadcast_to(array(value.args[0]), shape_of(value))
    return _compile_and_run(value)


def _compile_and_run(value: relax.Call) -> np.ndarray:
    builder = relax.BlockBuilder()
    with builder.function("main", []):
        builder.emit_func_output(builder.emit(value))
    executable = relax.build(builder.finalize(), tvm.target.Target({"kind": "llvm"}))
    return relax.VirtualMachine(executable, tvm.cpu())["main"]().numpy()
