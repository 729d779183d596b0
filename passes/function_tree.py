"""Trees of element-wise operators over one tensor and numbers: ``x * clip(x + 3, 0, 6) / 6`` is one function of x.

Such a function of 8-bit codes has 256 values, so it becomes a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from tvm import relax
from tvm.ir import GenericConst

from qcompile.passes.base import array, dtype_of, number, op_name, shape_of

Users = Mapping[relax.Var, list[relax.Var]]
Definitions = Mapping[relax.Var, relax.Expr]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)


def _erf(x: np.ndarray) -> np.ndarray:
    from math import erf

    return np.array([erf(v) for v in x.flat], np.float32).reshape(x.shape)


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * np.float32(0.5) * (1 + _erf(x * np.float32(0.5**0.5)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "abs": np.abs,
    "negative": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "erf": _erf,
    "floor": np.floor,
    "ceil": np.ceil,
    "sigmoid": _sigmoid,
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.silu": lambda x: x * _sigmoid(x),
    "nn.gelu": _gelu,
    "nn.gelu_tanh": _gelu_tanh,
    "nn.softplus": lambda x: np.logaddexp(0, x),
}
WITH_NUMBERS = ("clip", "nn.leakyrelu")  # their numbers are arguments or attributes, not constants


def grow(
    root: relax.Var,
    definitions: Definitions,
    users: Users,
    outputs: set[relax.Expr],
    claimed: set[relax.Var],
) -> tuple[relax.Var, tuple[relax.Var, ...]] | None:
    """The largest tree that ends in ``root``: (the tensor it is a function of, its variables in program order).

    None if ``root`` is no function of one tensor. Variables in ``claimed`` stay outside, and so does what anything
    outside the tree reads.
    """
    best = None
    leaf: relax.Var | None = root
    while (leaf := _source(leaf, definitions, claimed)) is not None:
        members = _between(leaf, root, definitions)
        inner = members - {root}
        if all(v not in outputs and members.issuperset(users[v]) for v in inner):
            best = leaf, tuple(v for v in definitions if v in members)
    return best


def evaluate(out: relax.Var, source: relax.Var, definitions: Definitions, x: np.ndarray) -> np.ndarray:
    """The tree's function of float32 values, in float32."""
    if out.same_as(source):
        return x
    value = definitions[out]

    def operand(arg: relax.Expr) -> np.ndarray:
        number_ = array(arg)
        return evaluate(arg, source, definitions, x) if number_ is None else number_.reshape(())

    with np.errstate(all="ignore"):
        kind = op_name(value)
        if kind == "clip":
            low, high = np.float32(number(value.args[1])), np.float32(number(value.args[2]))
            return np.clip(operand(value.args[0]), low, high)
        if kind == "nn.leakyrelu":
            inner = operand(value.args[0])
            return np.where(inner < 0, inner * np.float32(value.attrs.alpha), inner)
        return FUNCTIONS[kind](*(operand(arg) for arg in value.args)).astype(np.float32)


def title(members: tuple[relax.Var, ...], definitions: Definitions) -> str:
    """A name for reports: the operator that is not arithmetic, if there is one ("sigmoid"), else all of them."""
    kinds = list(dict.fromkeys(op_name(definitions[v]).removeprefix("nn.") for v in members))
    special = [k for k in kinds if k not in ("add", "subtract", "multiply", "divide")]
    return "_".join(special or kinds)


def _source(var: relax.Var, definitions: Definitions, claimed: set[relax.Var]) -> relax.Var | None:
    """The nearest tensor that ``var`` is a function of, other than itself; None if there is none."""
    value = definitions.get(var)
    if var in claimed or not _is_elementwise(value):
        return None
    operands = list(dict.fromkeys(arg for arg in value.args if isinstance(arg, relax.Var)))
    if not operands or any(shape_of(v) != shape_of(var) for v in operands):
        return None
    paths = []
    for operand in operands:
        path, step = [operand], operand
        while len(operands) > 1 and (step := _source(step, definitions, claimed)) is not None:
            path.append(step)
        paths.append(path)
    return next((v for v in paths[0] if all(v in path for path in paths[1:])), None)


def _is_elementwise(value: relax.Expr | None) -> bool:
    kind = op_name(value)
    if kind not in FUNCTIONS and kind not in WITH_NUMBERS:
        return False
    if not isinstance(value.ty, relax.TensorType) or dtype_of(value) != "float32":
        return False
    args = value.args[:1] if kind in WITH_NUMBERS else value.args
    return all(isinstance(a, relax.Var) or (isinstance(a, GenericConst) and array(a).size == 1) for a in args)


def _between(leaf: relax.Var, root: relax.Var, definitions: Definitions) -> set[relax.Var]:
    members, todo = set(), [root]
    while todo:
        var = todo.pop()
        if var.same_as(leaf) or var in members:
            continue
        members.add(var)
        todo += [arg for arg in definitions[var].args if isinstance(arg, relax.Var)]
    return members
