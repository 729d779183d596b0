"""Which channels of which tensors may be multiplied by a number only together, and which must stay as they are.

Between layers that are linear, or positively homogeneous as relu is, any channel may be multiplied by a positive number
where it is made and divided by it where it is read: the network computes the same. Channels that a residual add joins,
or that are one and the same before and after a pooling, a concatenation or a shuffle, are one *class*: they have to
share their number. Channels that something else reads or makes are *fixed*::

    a = relu(conv2d(x, w))         a0 a1
    b = relu(conv2d(x, v))         b0 b1
    c = concat(a, b)               a0 a1 b0 b1           classes of channels, numbered a0 a1 b0 b1
    y = conv2d(c, u)
    p = sigmoid(b)                                       so those of b are fixed after all
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from tvm import relax

from qcompile import graph
from qcompile.passes import channels
from qcompile.passes.base import array, op_name, shape_of
from qcompile.passes.chain import Chain, Uses, find_chains
from qcompile.passes.movement import moves, split_of
from qcompile.reference.interpreter import OPERATORS

LAYERS = ("conv", "conv_transpose", "dense")
NORM = "nn.layer_norm"
_BY_IMAGE = ("nn.max_pool2d", "nn.max_pool1d", "nn.pad", "image.resize2d")  # each channel by itself
_CHAINS_BY_IMAGE = ("avg_pool", "resize")


@dataclass(slots=True)
class ChannelClasses:
    """The classes of a float graph's channels.

    numbers: float32 tensor -> the class of each of its elements, int64 of its shape but for the axes along which
    nothing changes, which have extent 1. makers: tensor -> the layer, or the layer norm's variable, that can multiply
    its channels. readers: tensor -> layers that can divide by it. reasons: class -> why it is fixed.
    """

    main: graph.Graph
    numbers: dict[relax.Var, np.ndarray] = field(default_factory=dict)
    makers: dict[relax.Var, Chain | relax.Var] = field(default_factory=dict)
    readers: dict[relax.Var, list[Chain]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    _parent: list[int] = field(default_factory=list)
    _fixed: list[tuple[relax.Var, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        chains = find_chains(self.main)
        by_out = {chain.out: chain for chain in chains}
        inner = {var for chain in chains for var in chain.members if not var.same_as(chain.out)}
        definitions = Uses(self.main).definitions
        for param in self.main.params:
            self._fix(param, "a model input")
        for var, value in self.main.bindings:
            if var in by_out:
                self._chain(by_out[var])
            elif var not in inner:
                self._operator(var, value, definitions)
        for out in self.main.outputs:
            self._fix(out, "a model output")
        for var, reason in self._fixed:
            for number in np.unique(self._of(var)):
                self.reasons.setdefault(self._root(int(number)), reason)
        roots = np.array([self._root(i) for i in range(len(self._parent))], np.int64)
        self.numbers = {var: roots[numbers] for var, numbers in self.numbers.items()}

    def by_channel(self, var: relax.Var, axis: int) -> np.ndarray:
        """The class of each channel along an axis, along which alone they may differ: (channels,)."""
        return np.broadcast_to(self.numbers[var].reshape(-1), (shape_of(var)[axis],))

    def _chain(self, chain: Chain) -> None:
        """What a layer says of the tensors that it makes and reads."""
        out, reads = chain.out, [x for x in (*chain.inputs, chain.residual) if isinstance(x, relax.Var)]
        bounds = None if chain.clip in (None, (0.0, math.inf)) else chain.clip
        if chain.kind in LAYERS and channels.why_not(chain.call) is None:
            axis = channels.channel_axis(chain.call)
            self._along(out, axis)
            self.makers[out] = chain
            if self._along(chain.inputs[0], axis):
                self.readers.setdefault(chain.inputs[0], []).append(chain)
            if isinstance(chain.residual, relax.Var):
                self._join(out, chain.residual)
        elif chain.kind == "binary" and op_name(chain.call) == "add" and len(reads) == 2:
            for tensor in reads:
                self._join(out, tensor)
        elif chain.kind in _CHAINS_BY_IMAGE:
            self._by_image(out, reads[0])
        elif chain.kind == "function" and len(chain.members) == 1 and op_name(chain.call) == "nn.relu":
            self.numbers[out] = self._of(reads[0])
        elif chain.kind == "mean":
            self._mean(out, reads[0], chain.call)
        elif chain.kind == "concat" and len(reads) == len(chain.inputs):
            self._concat(out, chain.call)
        else:
            for tensor in (out, *reads):
                self._fix(tensor, f"part of a {chain.kind}")
        if bounds is not None:
            self._fix(out, f"bounded to {bounds[0]:g} ... {bounds[1]:g}")

    def _operator(self, var: relax.Var, value: relax.Expr, definitions: dict[relax.Var, relax.Expr]) -> None:
        """What an operator outside of layers says of the tensors that it makes and reads."""
        name = op_name(value)
        split = split_of(value, definitions)
        if name == "split":
            return  # its fields say the rest
        if name == NORM and _scales_rows(value):
            self._along(var, len(shape_of(var)) - 1)
            self.makers[var] = var
            self._fix(value.args[0], "read by a layer norm")
        elif name == "nn.relu" and isinstance(value.args[0], relax.Var):
            self.numbers[var] = self._of(value.args[0])
        elif name in _BY_IMAGE and moves(value):
            self._by_image(var, value.args[0])
        elif name == "matmul" and all(isinstance(arg, relax.Var) for arg in value.args):
            self._product(var, *value.args)
        elif split is not None and isinstance(split.args[0], relax.Var):
            parts = OPERATORS["relax.split"](split, self._whole(split.args[0]))
            self.numbers[var] = _collapsed(parts[value.index])
        elif f"relax.{name}" in OPERATORS and moves(value) and len(graph.reads(value)) == 1:
            others = [_argument(arg) for arg in value.args[1:]]
            self.numbers[var] = _collapsed(OPERATORS[f"relax.{name}"](value, self._whole(value.args[0]), *others))
        else:
            for tensor in (var, *graph.reads(value)):
                self._fix(tensor, f"part of a {name or 'tuple'}")

    def _by_image(self, out: relax.Var, source: relax.Var) -> None:
        """Each channel of a tensor (N, C, ...) makes one of the result."""
        numbers = self._of(source)
        if any(extent != 1 for axis, extent in enumerate(numbers.shape) if axis != 1):
            self._fix(source, "its channels are along different axes")
        self.numbers[out] = numbers.reshape(-1)[: numbers.shape[1]].reshape(1, -1, *[1] * (len(shape_of(out)) - 2))

    def _product(self, out: relax.Var, rows: relax.Var, columns: relax.Var) -> None:
        """A product of two tensors, as of attention's weights and values: linear in the columns of the second."""
        self._fix(rows, "a factor of a matmul")
        numbers = self._of(columns)
        if shape_of(columns)[:-2] != shape_of(out)[:-2] or numbers.shape[-2] != 1:
            self._fix(columns, "a factor of a matmul")
        self.numbers[out] = numbers[..., :1, :]

    def _mean(self, out: relax.Var, source: relax.Var, call: relax.Call) -> None:
        numbers, axes = self._of(source), [int(axis) % len(shape_of(source)) for axis in call.attrs.axis]
        if any(numbers.shape[axis] != 1 for axis in axes):
            self._fix(source, "a mean of several channels")
            self._fix(out, "a mean of several channels")
            return
        keeps = len(shape_of(out)) == len(shape_of(source))
        self.numbers[out] = numbers if keeps else numbers.squeeze(tuple(axes))

    def _concat(self, out: relax.Var, call: relax.Call) -> None:
        axis = int(call.attrs.axis) % len(shape_of(out))
        parts = [self._of(part) for part in call.args[0].fields]
        shape = [max(extents) for extents in zip(*(part.shape for part in parts), strict=True)]
        whole = []
        for tensor, part in zip(call.args[0].fields, parts, strict=True):
            shape[axis] = shape_of(tensor)[axis]
            whole.append(np.broadcast_to(part, shape))
        self.numbers[out] = _collapsed(np.concatenate(whole, axis))

    def _along(self, var: relax.Expr, axis: int) -> bool:
        """Gives a tensor classes along an axis, unless it has some; whether they differ along no other."""
        if not isinstance(var, relax.Var):
            return False
        numbers = self._of(var, axis)
        if any(extent != 1 for i, extent in enumerate(numbers.shape) if i != axis):
            self._fix(var, "its channels are along different axes")
            return False
        return True

    def _of(self, var: relax.Var, axis: int | None = None) -> np.ndarray:
        """The classes of a tensor; new ones along an axis, or one for all of it, if it has none yet."""
        if var not in self.numbers:
            shape = [1] * len(getattr(var.ty, "shape", ()) or ())
            if axis is not None:
                shape[axis] = shape_of(var)[axis]
            first = len(self._parent)
            self._parent.extend(range(first, first + math.prod(shape)))
            self.numbers[var] = np.arange(first, len(self._parent)).reshape(shape)
        return self.numbers[var]

    def _whole(self, var: relax.Var) -> np.ndarray:
        return np.broadcast_to(self._of(var), shape_of(var))

    def _fix(self, tensor: relax.Expr, reason: str) -> None:
        if isinstance(tensor, relax.Var) and isinstance(tensor.ty, relax.TensorType):
            self._fixed.append((tensor, reason))
            self._of(tensor)

    def _join(self, a: relax.Var, b: relax.Var) -> None:
        """Two tensors that are added have the same classes, element by element."""
        if shape_of(a) != shape_of(b):
            for tensor in (a, b):
                self._fix(tensor, "added to a tensor of another shape")
        self.numbers.setdefault(a, self._of(b))
        shape = np.broadcast_shapes(self._of(a).shape, self._of(b).shape)
        for one, other in zip(*(np.broadcast_to(self._of(t), shape).reshape(-1) for t in (a, b)), strict=True):
            self._parent[self._root(int(one))] = self._root(int(other))

    def _root(self, number: int) -> int:
        while (above := self._parent[number]) != number:
            self._parent[number] = number = self._parent[above]
        return number


def _argument(expr: relax.Expr) -> object:
    """An argument of an operator that moves elements: numbers, or an array of indices."""
    if isinstance(expr, relax.Tuple):
        return tuple(int(field.value) for field in expr.fields)
    if isinstance(expr, relax.ShapeExpr):
        return tuple(int(extent) for extent in expr.values)
    return array(expr)


def _collapsed(numbers: np.ndarray) -> np.ndarray:
    """With extent 1 along the axes along which nothing changes."""
    for axis in range(numbers.ndim):
        first = numbers.take([0], axis)
        if numbers.shape[axis] > 1 and (numbers == first).all():
            numbers = first
    return numbers


def _scales_rows(norm: relax.Call) -> bool:
    """Whether a layer norm ends in a constant factor and shift for each element of the last axis."""
    last = shape_of(norm)[-1:]
    axes = [int(axis) % len(shape_of(norm)) for axis in norm.attrs.axes]
    factors = norm.args[1:]
    return axes == [len(shape_of(norm)) - 1] and all(
        array(factor) is not None and shape_of(factor) == last for factor in factors
    )
