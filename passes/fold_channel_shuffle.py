"""A reshape, a transpose and a reshape that interleave groups of channels are one operator."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph, ops
from qcompile.graph import MainBuilder
from qcompile.passes.base import dtype_of, module_pass, op_name, shape_of
from qcompile.passes.chain import Uses
from qcompile.passes.composite import Composite
from qcompile.passes.layer_names import layer_name


def fold_channel_shuffle(layers: Mapping[str, str] | None = None) -> tvm.ir.transform.ModulePass:
    """Channels of codes from group after group to one of each group in turn (ShuffleNet)::

    a = reshape(x, (N, g, C/g, H, W))
    b = permute_dims(a, (0, 2, 1, 3, 4))      ->      y = channel_shuffle(x)       a composite
    y = reshape(b, (N, C, H, W))
    """
    return module_pass("FoldChannelShuffle", lambda module: _run(module, layers or {}), fold_channel_shuffle.__doc__)


def _run(module: IRModule, layers: Mapping[str, str]) -> IRModule:
    uses = Uses(graph.read(module))
    builder = MainBuilder(uses.main.params, module)
    new: dict[relax.Var, relax.Expr] = {}
    for var, value in uses.main.bindings:
        found = match(value, uses)
        if found is None:
            new[var] = builder.emit(graph.substitute(value, new), var.name)
            continue
        source, groups = found
        x = graph.substitute(source, new)
        composite = Composite([x])
        n, c, *image = shape_of(x)
        split = composite.emit(relax.op.reshape(composite.params[0], (n, groups, c // groups, *image)))
        swapped = composite.emit(relax.op.permute_dims(split, [0, 2, 1, *range(3, 3 + len(image))]))
        result = composite.emit(relax.op.reshape(swapped, (n, c, *image)))
        function = composite.function(result, ops.ChannelShuffle(groups), layer_name(var.name, layers))
        new[var] = builder.call(function, [x], var.name, "channel_shuffle")
    return builder.module([graph.substitute(out, new) for out in uses.main.outputs])


def match(value: relax.Expr, uses: Uses) -> tuple[relax.Var, int] | None:
    """The tensor whose channels ``value`` shuffles, and the number of groups."""
    if op_name(value) != "reshape" or dtype_of(value) not in ("uint8", "int8"):
        return None
    permute = uses.definitions.get(value.args[0])
    if op_name(permute) != "permute_dims" or permute.attrs.axes is None:
        return None
    split = uses.definitions.get(permute.args[0])
    if op_name(split) != "reshape" or not isinstance(split.args[0], relax.Var):
        return None
    whole, parts = shape_of(split.args[0]), shape_of(split)
    if shape_of(value) != whole or len(whole) not in (3, 4) or len(parts) != len(whole) + 1:
        return None
    axes = tuple(int(a) for a in permute.attrs.axes)
    swaps = axes == (0, 2, 1, *range(3, len(parts)))
    return (split.args[0], parts[1]) if swaps and (parts[0], *parts[3:]) == (whole[0], *whole[2:]) else None
