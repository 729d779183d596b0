"""Chains: the operators of ``main`` that become one layer. The plan, QDQ insertion, folding and fusion all ask here.

A chain starts at an anchor and takes what one kernel computes along with it::

    anchor -> [add a bias] -> [add a residual] -> [relu | clip]

An inner result that anything else needs ends the chain before it. The chain's last variable names the layer.

In QDQ form constants are bound as ``dequantize(constant codes)``; a chain is found there as in float form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tvm import relax
from tvm.ir import GenericConst

from qcompile import graph
from qcompile.passes import embedding
from qcompile.passes.base import dtype_of, number, op_name, shape_of
from qcompile.passes.function_tree import grow

CONV = ("nn.conv1d", "nn.conv2d")
CONV_TRANSPOSE = ("nn.conv1d_transpose", "nn.conv2d_transpose")
BINARY = ("add", "subtract", "multiply")
WEIGHTED = ("conv", "conv_transpose", "dense", "scale")  # kinds with a weight


@dataclass(frozen=True, slots=True)
class Chain:
    """The operators of one layer.

    kind: "conv", "conv_transpose", "dense", "scale" (times a constant for each channel: a 1x1 depthwise convolution),
    "binary", "avg_pool", "mean", "resize", "softmax", "concat", "function" (of one tensor, to be tabulated),
    "gather" (rows of a constant table, its weight; the bias is a constant of positions).
    call: the anchor's value (the last operator's for a function). members: variables, in program order.
    inputs: the anchor's data operands; one of a binary may be a constant. weight, bias: constant operands.
    """

    kind: str
    call: relax.Call
    members: tuple[relax.Var, ...]
    inputs: tuple[relax.Expr, ...]
    weight: relax.Expr | None = None
    bias: relax.Expr | None = None
    residual: relax.Var | None = None
    clip: tuple[float, float] | None = None

    @property
    def anchor(self) -> relax.Var:
        return self.members[0]

    @property
    def out(self) -> relax.Var:
        return self.members[-1]

    @property
    def name(self) -> str:
        """The layer's name: its output tensor's."""
        return self.out.name


@dataclass(slots=True)
class Uses:
    """``main`` with what a search needs to know of it."""

    main: graph.Graph
    definitions: dict[relax.Var, relax.Expr] = field(init=False)
    users: dict[relax.Var, list[relax.Var]] = field(init=False)
    outputs: set[relax.Expr] = field(init=False)

    def __post_init__(self) -> None:
        self.definitions = self.main.definitions()
        self.users = self.main.users()
        self.outputs = set(self.main.outputs)

    def is_constant(self, expr: relax.Expr) -> bool:
        """A constant, or codes of one, or one of a narrower type."""
        if isinstance(expr, relax.Var):
            value = self.definitions.get(expr)
            return op_name(value) in ("dequantize", "astype") and isinstance(value.args[0], GenericConst)
        return isinstance(expr, GenericConst)

    def only_user(self, var: relax.Var) -> relax.Var | None:
        """The one variable whose value reads ``var``, once; None if there are others or ``var`` is an output."""
        users = self.users[var]
        if len(users) != 1 or var in self.outputs or graph.reads(self.definitions[users[0]]).count(var) != 1:
            return None
        return users[0]


def find_chains(main: graph.Graph) -> list[Chain]:
    """All chains, in the order of their last variables. No variable belongs to two.

    Of two layers whose sum is a residual add, the later one takes it: the other's result exists by then.
    """
    uses = Uses(main)
    chains: dict[relax.Var, Chain] = {}
    claimed: set[relax.Var] = set()

    def take(chain: Chain | None) -> None:
        if chain is not None and not claimed.intersection(chain.members):
            claimed.update(chain.members)
            chains[chain.out] = chain

    for var, value in reversed(main.bindings):
        take(_extend(_weighted(var, value, uses), uses, claimed))
        take(_gather(var, value, uses))
    functions = [_function(var, value, uses, claimed) for var, value in reversed(main.bindings)]
    for chain in functions:
        if chain is not None and not _only_bounds(chain, uses):
            take(chain)
    for var, value in reversed(main.bindings):
        if var not in claimed:
            take(_extend(_unweighted(var, value, uses), uses, claimed))
    for chain in functions:
        take(chain)
    return [chains[var] for var, _ in main.bindings if var in chains]


def _weighted(var: relax.Var, value: relax.Expr, uses: Uses) -> Chain | None:
    kind = op_name(value)
    if kind in CONV or kind in CONV_TRANSPOSE:
        name = "conv" if kind in CONV else "conv_transpose"
        return Chain(name, value, (var,), (value.args[0],), weight=value.args[1])
    if kind not in ("matmul", "multiply") or not uses.is_constant(value.args[1]) or uses.is_constant(value.args[0]):
        return None
    x, weight = value.args
    if kind == "matmul":
        return Chain("dense", value, (var,), (x,), weight=weight) if len(shape_of(weight)) == 2 else None
    if is_by_channel(weight, x) and shape_of(x) == shape_of(var) and dtype_of(x) == "float32":
        return Chain("scale", value, (var,), (x,), weight=weight)
    return None


def _gather(var: relax.Var, value: relax.Expr, uses: Uses) -> Chain | None:
    """Rows of a constant table, and a constant that is added; indices are no data, so the chain has no inputs."""
    if not embedding.looks_up(value) or not uses.is_constant(value.args[0]) or uses.is_constant(value.args[1]):
        return None
    table = value.args[0]
    follower = uses.only_user(var)
    call = uses.definitions[follower] if follower is not None else None
    if op_name(call) == "add" and embedding.why_not(table) is None:
        other = call.args[1] if call.args[0].same_as(var) else call.args[0]
        if uses.is_constant(other) and embedding.is_addend(other, var):
            return Chain("gather", value, (var, follower), (), table, other)
    return Chain("gather", value, (var,), (), table)


def _unweighted(var: relax.Var, value: relax.Expr, uses: Uses) -> Chain | None:
    kind = op_name(value)
    if not isinstance(var.ty, relax.TensorType) or dtype_of(var) != "float32":
        return None
    if kind in BINARY:
        return Chain("binary", value, (var,), tuple(value.args))
    if kind == "concat":
        return Chain("concat", value, (var,), tuple(value.args[0].fields)) if _is_tuple(value.args[0]) else None
    names = {"nn.avg_pool1d": "avg_pool", "nn.avg_pool2d": "avg_pool", "mean": "mean", "nn.softmax": "softmax"}
    if kind in names:
        return Chain(names[kind], value, (var,), (value.args[0],))
    if kind == "image.resize2d" and str(value.attrs.method) == "linear":
        return Chain("resize", value, (var,), (value.args[0],))
    return None


def _extend(chain: Chain | None, uses: Uses, claimed: set[relax.Var]) -> Chain | None:
    """The chain with what follows its anchor."""
    if chain is None:
        return None
    members, bias, residual, clip = [chain.anchor], None, None, None
    while chain.kind not in ("concat", "softmax"):
        last = members[-1]
        follower = uses.only_user(last)
        if follower is None or follower in claimed:
            break
        value = uses.definitions[follower]
        bounds = bounds_of(value)
        if bounds is not None:
            members.append(follower)
            clip = bounds
            break
        if op_name(value) != "add" or residual is not None or chain.kind not in WEIGHTED:
            break
        other = value.args[1] if value.args[0].same_as(last) else value.args[0]
        if uses.is_constant(other):
            if bias is not None or not _is_bias(other, last, chain.kind):
                break
            bias = other
        elif isinstance(other, relax.Var) and shape_of(other) == shape_of(last):
            residual = other
        else:
            break
        members.append(follower)
    return Chain(chain.kind, chain.call, tuple(members), chain.inputs, chain.weight, bias, residual, clip)


def _function(var: relax.Var, value: relax.Expr, uses: Uses, claimed: set[relax.Var]) -> Chain | None:
    if var in claimed:
        return None
    tree = grow(var, uses.definitions, uses.users, uses.outputs, claimed)
    if tree is None:
        return None
    source, members = tree
    return Chain("function", value, members, (source,))


def _only_bounds(chain: Chain, uses: Uses) -> bool:
    return bounds_of(uses.definitions[chain.anchor]) is not None and len(chain.members) == 1


def bounds_of(value: relax.Expr | None) -> tuple[float, float] | None:
    """The bounds of a relu or clip."""
    if op_name(value) == "nn.relu":
        return 0.0, math.inf
    return (number(value.args[1]), number(value.args[2])) if op_name(value) == "clip" else None


def is_by_channel(constant: relax.Expr, tensor: relax.Expr) -> bool:
    """Whether a constant (1, C, 1, 1) or (C, 1, 1) scales the channels of a tensor (N, C, H, W), C > 1."""
    shape, full = shape_of(constant), shape_of(tensor)
    if len(shape) > len(full) or len(full) not in (3, 4):
        return False
    padded = (1,) * (len(full) - len(shape)) + shape
    return padded[1] == full[1] > 1 and all(extent == 1 for i, extent in enumerate(padded) if i != 1)


def _is_bias(constant: relax.Expr, result: relax.Expr, kind: str) -> bool:
    """Whether adding a constant to a layer's result adds one number to each output channel."""
    shape, full = shape_of(constant), shape_of(result)
    if len(shape) > len(full):
        return False
    axis = len(full) - 1 if kind == "dense" else 1
    padded = (1,) * (len(full) - len(shape)) + shape
    return padded[axis] in (1, full[axis]) and all(extent == 1 for i, extent in enumerate(padded) if i != axis)


def _is_tuple(expr: relax.Expr) -> bool:
    return isinstance(expr, relax.Tuple)


def chain_members(chains: list[Chain]) -> Mapping[relax.Var, Chain]:
    """Variable -> the chain that computes it."""
    return {var: chain for chain in chains for var in chain.members}
