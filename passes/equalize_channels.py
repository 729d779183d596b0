"""Channels of very different magnitude, brought closer together, so that one scale suits them all.

(Cross-layer equalization: Nagel et al., ICCV 2019, section 4.1; behind a layer norm it is SmoothQuant's step, Xiao et
al. 2023.) Any channel that may be (see ``channel_classes``) is multiplied by a positive number where it is made and
divided by it where it is read: the network computes the same::

    y = relu(conv2d(x, w) + b)           y = relu(conv2d(x, s w) + s b)
    z = conv2d(y, v)                ->   z = conv2d(y, v / s)

A *group* is a set of tensors that share such numbers, by class. A tensor that is float32 in any case, and fixed because
others read it too, as behind a layer norm in front of a residual add, is multiplied for the layers alone::

    y = layer_norm(x, g, b)              y = layer_norm(x, g, b)
    z = matmul(y, v)                ->   y.scaled = multiply(y, s)
    r = add(y, z)                        z = matmul(y.scaled, v / s);  r = add(y, z)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import IRModule
from tvm.ir.transform import Pass

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.graph import MainBuilder
from qcompile.passes import channels
from qcompile.passes.base import array, constant, module_pass, op_name, refused, shape_of, with_args
from qcompile.passes.chain import Chain, Uses, chain_members, find_chains
from qcompile.passes.channel_classes import ChannelClasses
from qcompile.passes.movement import moved_from
from qcompile.passes.weights import bias_vector


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that share positive numbers by which their channels may be multiplied.

    name: what the numbers go by: the first tensor's. count: how many there are.
    index: tensor -> which number multiplies its elements, -1 for none, in a shape that broadcasts to the tensor's.
    makers: the layers, and the variables of layer norms, that make some of the tensors. readers: tensor -> layers.
    between: the tensor that is multiplied for its readers alone; None for the usual group.
    """

    name: str
    count: int
    index: Mapping[relax.Var, np.ndarray]
    readers: tuple[tuple[relax.Var, Chain], ...]
    makers: tuple[tuple[relax.Var, Chain | relax.Var], ...] = ()
    between: relax.Var | None = None

    def by_channel(self, tensor: relax.Var, axis: int) -> np.ndarray:
        """(channels,) int64: which number multiplies each channel of a tensor that a layer makes or reads."""
        return np.broadcast_to(self.index[tensor].reshape(-1), (shape_of(tensor)[axis],))


def equalize_channels(scales: Mapping[str, tuple[float, ...]]) -> Pass:
    """Multiplies the channels of groups, named by their first tensors, by ``scales``, and divides where they are read.

    Raises ``QCompileError`` for a name that is no group's, and for numbers that do not fit or are not positive.
    """
    return module_pass("EqualizeChannels", lambda module: _apply(module, scales), equalize_channels.__doc__)


def find_groups(main: graph.Graph) -> list[Group]:
    """The groups whose channels may be scaled; what nearly was one is logged with the reason."""
    classes = ChannelClasses(main)
    for var in classes.readers:
        found = {classes.reasons.get(int(number)) for number in np.unique(classes.numbers[var])}
        if None not in found:
            refused("EqualizeChannels", f"{var.name}: {', '.join(sorted(map(str, found)))}")
    return [*_shared(classes), *_between(main, classes)]


def _shared(classes: ChannelClasses) -> list[Group]:
    """Groups of tensors that have classes in common which are not fixed."""
    leader: dict[int, int] = {}  # class -> another of its group

    def root(number: int) -> int:
        while (above := leader.setdefault(number, number)) != number:
            number = above
        return number

    free = {
        var: [int(n) for n in np.unique(numbers) if int(n) not in classes.reasons]
        for var, numbers in classes.numbers.items()
    }
    for numbers in free.values():
        for number in numbers[1:]:
            leader[root(number)] = root(numbers[0])
    members: dict[int, list[relax.Var]] = {}
    for var, numbers in free.items():
        if numbers:
            members.setdefault(root(numbers[0]), []).append(var)
    return [group for tensors in members.values() if (group := _group(classes, tensors)).readers]


def _group(classes: ChannelClasses, tensors: list[relax.Var]) -> Group:
    order: dict[int, int] = {-1: -1}  # class -> its number, in order of appearance
    index = {}
    for var in tensors:
        numbers = classes.numbers[var]
        kept = [n if n not in classes.reasons else -1 for n in numbers.reshape(-1).tolist()]
        index[var] = np.array([order.setdefault(n, len(order) - 1) for n in kept], np.int64).reshape(numbers.shape)
    readers = tuple((var, layer) for var in tensors for layer in classes.readers.get(var, ()))
    makers = tuple((var, classes.makers[var]) for var in tensors if var in classes.makers)
    return Group(tensors[0].name, len(order) - 1, index, readers, makers)


def _between(main: graph.Graph, classes: ChannelClasses) -> list[Group]:
    """Tensors that float operators make, all of whose channels are fixed, and that layers read."""
    members, definitions = chain_members(find_chains(main)), Uses(main).definitions
    groups = []
    for var, layers in classes.readers.items():
        root = var
        while isinstance(source := moved_from(definitions.get(root), definitions), relax.Var):
            root = source
        fixed = all(int(number) in classes.reasons for number in np.unique(classes.numbers[var]))
        if not fixed or root in members or root not in definitions or op_name(definitions[root]) == "split":
            continue
        axis = channels.channel_axis(layers[0].call)
        if any(channels.channel_axis(layer.call) != axis for layer in layers):
            continue
        count = shape_of(var)[axis]
        index = np.arange(count).reshape([-1 if i == axis else 1 for i in range(len(shape_of(var)))])
        readers = tuple((var, layer) for layer in layers)
        groups.append(Group(f"{var.name}.scaled", count, {var: index}, readers, between=var))
    return groups


def factors(main: graph.Graph, scales: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[str, np.ndarray]]:
    """What ``equalize_channels`` does to the values of tensors: name -> a tensor of ``main``, and what it is times.

    Factors are float32 and broadcast to the tensor. Tensors that stay as they are are left out.
    """
    result = {}
    for group, scale in _scaled_groups(main, scales):
        if group.between is not None:
            result[group.name] = (group.between.name, scale[group.index[group.between]].astype(np.float32))
            continue
        for var, index in group.index.items():
            result[var.name] = (var.name, scale[index].astype(np.float32))
    return result


def _scaled_groups(main: graph.Graph, scales: Mapping[str, tuple[float, ...]]) -> list[tuple[Group, np.ndarray]]:
    """The groups named, with their numbers and a 1 behind them, which is what index -1 finds."""
    groups = {group.name: group for group in find_groups(main)} if scales else {}
    result = []
    for name, numbers in scales.items():
        if name not in groups:
            raise QCompileError("its channels cannot be scaled", node=name, remedy="make the plan again")
        group, scale = groups[name], np.array(numbers, np.float64)
        if scale.shape != (group.count,) or not (np.isfinite(scale).all() and (scale > 0).all()):
            wanted = f"give {group.count} positive numbers"
            raise QCompileError(f"{scale.size} numbers do not scale its channels", node=name, remedy=wanted)
        result.append((group, np.append(scale, 1.0)))
    return result


def _apply(module: IRModule, scales: Mapping[str, tuple[float, ...]]) -> IRModule:
    if not scales:
        return module
    main = graph.read(module)
    definitions = main.definitions()
    calls: dict[relax.Var, relax.Call] = {}  # variable -> its value with scaled constants
    products: dict[relax.Var, relax.Call] = {}  # tensor -> what layers read in its place
    instead: dict[relax.Var, relax.Var] = {}  # anchor of such a layer -> the tensor
    for group, scale in _scaled_groups(main, scales):
        for var, maker in group.makers:
            calls.update(_made(var, maker, group, scale, calls, definitions))
        for var, layer in group.readers:
            axis = channels.channel_axis(layer.call)
            call = calls.get(layer.anchor, layer.call)
            calls[layer.anchor] = _typed(channels.scale_inputs(call, 1 / scale[group.by_channel(var, axis)]))
        if group.between is not None:
            factor = scale[group.index[group.between]]
            products[group.between] = relax.op.multiply(group.between, constant(factor))
            instead.update((layer.anchor, group.between) for _, layer in group.readers)
    builder = MainBuilder(main.params, module)
    new: dict[relax.Var, relax.Expr] = {}
    scaled: dict[relax.Var, relax.Expr] = {}
    for var, value in main.bindings:
        known = {**new, instead[var]: scaled[instead[var]]} if var in instead else new
        new[var] = builder.emit(graph.substitute(calls.get(var, value), known), var.name)
        if var in products:
            scaled[var] = builder.emit(graph.substitute(products[var], new), f"{var.name}.scaled")
    return builder.module([graph.substitute(out, new) for out in main.outputs])


def _made(
    var: relax.Var,
    maker: Chain | relax.Var,
    group: Group,
    scale: np.ndarray,
    calls: Mapping[relax.Var, relax.Call],
    definitions: Mapping[relax.Var, relax.Expr],
) -> dict[relax.Var, relax.Call]:
    """The operators of a layer or a layer norm that makes a tensor, with scaled constants."""
    if not isinstance(maker, Chain):
        call = definitions[maker]
        by_channel = scale[group.by_channel(var, len(shape_of(var)) - 1)]
        return {maker: with_args(call, call.args[0], *(constant(array(arg) * by_channel) for arg in call.args[1:]))}
    by_channel = scale[group.by_channel(var, channels.channel_axis(maker.call))]
    made = {maker.anchor: _typed(channels.scale_outputs(calls.get(maker.anchor, maker.call), by_channel))}
    if maker.bias is not None:
        add = definitions[maker.members[1]]
        bias = channels.bias(bias_vector(maker) * by_channel, maker.call)
        made[maker.members[1]] = with_args(add, *(bias if a.same_as(maker.bias) else a for a in add.args))
    return made


def _typed(call: relax.Call) -> relax.Call:
    return relax.BlockBuilder().normalize(call)
