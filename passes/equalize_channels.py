"""Channels of very different magnitude, brought closer together, so that one scale suits them all.

(Cross-layer equalization: Nagel et al., ICCV 2019, section 4.1; behind a layer norm it is SmoothQuant's step, Xiao et
al. 2023.) Between layers that are linear, or positively homogeneous as relu is, any channel may be multiplied by a
positive number where it is made and divided by it where it is read: the network computes the same::

    y = relu(conv2d(x, w) + b)           y = relu(conv2d(x, s w) + s b)
    z = conv2d(y, v)                ->   z = conv2d(y, v / s)

A *group* is a set of tensors whose channels have to share these numbers: what a residual add joins, and what a max pool
reads and makes. All that make and all that read tensors of a group must be able to take the numbers up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from tvm import relax
from tvm.ir import IRModule
from tvm.ir.transform import Pass

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.graph import MainBuilder
from qcompile.passes import channels
from qcompile.passes.base import array, constant, module_pass, op_name, refused, shape_of, with_args
from qcompile.passes.chain import Chain, find_chains
from qcompile.passes.weights import bias_vector

LAYERS = ("conv", "conv_transpose", "dense")
NORM = "nn.layer_norm"


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that share one positive number for each channel.

    tensors: in order. axis: of their channels. layers, norms: what makes them. readers: the layers that read them.
    """

    tensors: tuple[relax.Var, ...]
    axis: int
    layers: tuple[Chain, ...]
    norms: tuple[relax.Var, ...]
    readers: tuple[Chain, ...]

    @property
    def name(self) -> str:
        """Of the first tensor; what the numbers go by."""
        return self.tensors[0].name

    @property
    def channels(self) -> int:
        return shape_of(self.tensors[0])[self.axis]


def equalize_channels(scales: Mapping[str, tuple[float, ...]]) -> Pass:
    """Multiplies the channels of groups, named by their first tensors, by ``scales``, and divides where they are read.

    Raises ``QCompileError`` for a name that is no group's, and for numbers that do not fit or are not positive.
    """
    return module_pass("EqualizeChannels", lambda module: _apply(module, scales), equalize_channels.__doc__)


def find_groups(main: graph.Graph) -> list[Group]:
    """The groups whose channels may be scaled, in order; what nearly was one is logged with the reason."""
    return _Search(main).groups()


def _apply(module: IRModule, scales: Mapping[str, tuple[float, ...]]) -> IRModule:
    if not scales:
        return module
    main = graph.read(module)
    groups = {group.name: group for group in find_groups(main)}
    calls: dict[relax.Var, relax.Call] = {}  # variable -> its value with scaled constants
    definitions = main.definitions()
    for name, numbers in scales.items():
        if name not in groups:
            raise QCompileError("its channels cannot be scaled", node=name, remedy="make the plan again")
        group, scale = groups[name], np.array(numbers, np.float64)
        if scale.shape != (group.channels,) or not (np.isfinite(scale).all() and (scale > 0).all()):
            wanted = f"give {group.channels} positive numbers"
            raise QCompileError(f"{scale.size} numbers do not scale its channels", node=name, remedy=wanted)
        for chain in group.layers:
            call = calls.get(chain.anchor, chain.call)
            calls[chain.anchor] = _typed(channels.scale_outputs(call, scale))
            if chain.bias is not None:
                add = definitions[chain.members[1]]
                bias = channels.bias(bias_vector(chain) * scale, chain.call)
                calls[chain.members[1]] = with_args(add, *(bias if a.same_as(chain.bias) else a for a in add.args))
        for norm in group.norms:
            call = definitions[norm]
            factors = [constant(array(arg) * scale) for arg in call.args[1:]]
            calls[norm] = with_args(call, call.args[0], *factors)
        for chain in group.readers:
            calls[chain.anchor] = _typed(channels.scale_inputs(calls.get(chain.anchor, chain.call), 1 / scale))
    builder = MainBuilder(main.params, module)
    new: dict[relax.Var, relax.Expr] = {}
    for var, value in main.bindings:
        new[var] = builder.emit(graph.substitute(calls.get(var, value), new), var.name)
    return builder.module([graph.substitute(out, new) for out in main.outputs])


def _typed(call: relax.Call) -> relax.Call:
    return relax.BlockBuilder().normalize(call)


@dataclass(slots=True)
class _Search:
    """parent: tensor -> one of its group (union-find). reasons: tensor -> why its group must stay as it is."""

    main: graph.Graph
    parent: dict[relax.Var, relax.Var] = field(default_factory=dict)
    reasons: dict[relax.Var, str] = field(default_factory=dict)
    axes: dict[relax.Var, int] = field(default_factory=dict)
    makers: dict[relax.Var, Chain | None] = field(default_factory=dict)
    readers: list[tuple[relax.Var, Chain]] = field(default_factory=list)

    def groups(self) -> list[Group]:
        chains = find_chains(self.main)
        members = {var for chain in chains for var in chain.members}
        for param in self.main.params:
            self._refuse(param, "a model input")
        for out in self.main.outputs:
            self._refuse(out, "a model output")
        for chain in chains:
            self._chain(chain)
        for var, value in self.main.bindings:
            if var not in members:
                self._operator(var, value)
        roots: dict[relax.Var, list[relax.Var]] = {}
        for var in (*self.main.params, *(var for var, _ in self.main.bindings)):
            if var in self.makers or var in self.parent:
                roots.setdefault(self._root(var), []).append(var)
        groups = [self._group(tensors) for tensors in roots.values()]
        return [group for group in groups if group is not None]

    def _group(self, tensors: list[relax.Var]) -> Group | None:
        readers = [chain for tensor, chain in self.readers if any(tensor.same_as(t) for t in tensors)]
        if not readers:
            return None
        reason = next((f"{self.reasons[t]} ({t.name})" for t in tensors if t in self.reasons), None)
        axes = {self.axes[t] for t in tensors if t in self.axes}
        shapes = {shape_of(t)[axis] for t in tensors for axis in axes}
        if reason is None and (len(axes) != 1 or len(shapes) != 1):
            reason = "its channels are along different axes"
        if reason is not None:
            refused("EqualizeChannels", f"{tensors[0].name}: {reason}")
            return None
        made = [(t, self.makers[t]) for t in tensors if t in self.makers]
        layers = tuple(chain for _, chain in made if chain is not None)
        norms = tuple(t for t, chain in made if chain is None)
        return Group(tuple(tensors), axes.pop(), layers, norms, tuple(readers))

    def _chain(self, chain: Chain) -> None:
        """What a layer says of the tensors that it makes and reads."""
        reads = [x for x in (*chain.inputs, chain.residual) if isinstance(x, relax.Var)]
        same = chain.kind in LAYERS and channels.why_not(chain.call) is None
        joins = chain.kind == "binary" and op_name(chain.call) == "add" and len(reads) == 2
        joins = joins and all(shape_of(x) == shape_of(chain.out) for x in reads)
        if not same and not joins:
            for tensor in (chain.out, *reads):
                self._refuse(tensor, f"part of a {chain.kind}")
            return
        if chain.clip not in (None, (0.0, math.inf)):
            self._refuse(chain.out, f"bounded to {chain.clip[0]:g} ... {chain.clip[1]:g}")  # type: ignore[index]
        if joins:
            for tensor in reads:
                self._join(chain.out, tensor)
            return
        axis = channels.channel_axis(chain.call)
        self.makers[chain.out] = chain
        self._along(chain.out, axis)
        self.readers.append((chain.inputs[0], chain))
        self._along(chain.inputs[0], axis)
        if isinstance(chain.residual, relax.Var):
            self._join(chain.out, chain.residual)

    def _operator(self, var: relax.Var, value: relax.Expr) -> None:
        """What an operator outside of layers says of the tensors that it makes and reads."""
        if op_name(value) == "nn.max_pool2d" and str(value.attrs.layout) == "NCHW":
            self._join(var, value.args[0])
            self._along(var, 1)
            return
        if op_name(value) == NORM and _scales_rows(value):
            self.makers[var] = None
            self._along(var, len(shape_of(var)) - 1)
            self._refuse(value.args[0], "read by a layer norm")
            return
        for tensor in (var, *graph.reads(value)):
            self._refuse(tensor, f"part of a {op_name(value) or 'tuple'}")

    def _refuse(self, tensor: relax.Expr, reason: str) -> None:
        if isinstance(tensor, relax.Var):
            self.reasons.setdefault(tensor, reason)
            self.parent.setdefault(tensor, tensor)

    def _along(self, tensor: relax.Expr, axis: int) -> None:
        if not isinstance(tensor, relax.Var):
            return
        if self.axes.setdefault(tensor, axis) != axis:
            self._refuse(tensor, "its channels are along different axes")

    def _root(self, tensor: relax.Var) -> relax.Var:
        while not (above := self.parent.setdefault(tensor, tensor)).same_as(tensor):
            tensor = above
        return tensor

    def _join(self, a: relax.Var, b: relax.Var) -> None:
        self.parent[self._root(a)] = self._root(b)


def _scales_rows(norm: relax.Call) -> bool:
    """Whether a layer norm ends in a constant factor and shift for each element of the last axis."""
    last = shape_of(norm)[-1:]
    axes = [int(axis) % len(shape_of(norm)) for axis in norm.attrs.axes]
    factors = norm.args[1:]
    return axes == [len(shape_of(norm)) - 1] and all(
        array(factor) is not None and shape_of(factor) == last for factor in factors
    )
