"""Operators that move data. Shapes are static, so Squeeze, Unsqueeze and Flatten are all ``reshape``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx
from tvm import relax

from qcompile.frontend.context import NodeContext, Result

BAKED_SHAPE = "the model bakes in another batch size: give that one (--input-shapes), or export with a dynamic batch"
PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _reshaped(ctx: NodeContext, shape: tuple[int, ...]) -> Result:
    if 0 in shape:
        return np.zeros(shape, ctx.dtype())
    return ctx.inputs[0] if shape == ctx.shape() else relax.op.reshape(ctx.tensor(0), shape)


def reshape(ctx: NodeContext) -> Result:
    have = ctx.shape()
    want = ctx.ints(1, "shape", "shape")
    if not ctx.get("allowzero", 0):
        want = [have[i] if n == 0 and i < len(have) else n for i, n in enumerate(want)]
    known = prod(n for n in want if n != -1)
    if want.count(-1) == 1 and known and prod(have) % known == 0:
        want[want.index(-1)] = prod(have) // known
    if prod(want) != prod(have) or -1 in want:
        raise ctx.fail(
            f"cannot reshape {_x(have)} to {_x(want)}",
            BAKED_SHAPE,
        )
    return _reshaped(ctx, tuple(want))


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def flatten(ctx: NodeContext) -> Result:
    shape = ctx.shape()
    axis = ctx.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    return _reshaped(ctx, (prod(shape[:axis]), prod(shape[axis:])))


def squeeze(ctx: NodeContext) -> Result:
    shape = ctx.shape()
    axes = ctx.optional_ints(1, "axes", "axes")
    gone = {a % len(shape) for a in axes} if axes else {i for i, n in enumerate(shape) if n == 1}
    if any(shape[i] != 1 for i in gone):
        raise ctx.fail(f"cannot squeeze axes {sorted(gone)} of {_x(shape)}", "mend or re-export the model")
    return _reshaped(ctx, tuple(n for i, n in enumerate(shape) if i not in gone))


def unsqueeze(ctx: NodeContext) -> Result:
    shape, axes = list(ctx.shape()), ctx.ints(1, "axes", "axes")
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return _reshaped(ctx, tuple(shape))


def transpose(ctx: NodeContext) -> Result:
    rank = len(ctx.shape())
    perm = ctx.get("perm") or list(range(rank))[::-1]
    return ctx.inputs[0] if list(perm) == list(range(rank)) else relax.op.permute_dims(ctx.tensor(0), perm)


def expand(ctx: NodeContext) -> Result:
    have, want = ctx.shape(), ctx.ints(1, "shape", "shape")
    try:
        shape = np.broadcast_shapes(have, tuple(want))
    except ValueError:
        raise ctx.fail(
            f"cannot expand {_x(have)} to {_x(want)}",
            BAKED_SHAPE,
        ) from None
    return ctx.inputs[0] if shape == have else relax.op.broadcast_to(ctx.tensor(0), shape)


def tile(ctx: NodeContext) -> Result:
    repeats = ctx.ints(1, "repeats", "repeats")
    return ctx.inputs[0] if all(r == 1 for r in repeats) else relax.op.tile(ctx.tensor(0), repeats)


def concat(ctx: NodeContext) -> Result:
    full = [i for i in range(len(ctx.inputs)) if 0 not in ctx.shape(i)]
    if len(full) < 2:
        return ctx.inputs[full[0] if full else 0]
    return relax.op.concat([ctx.tensor(i) for i in full], axis=ctx.axis(1, len(ctx.shape(full[0]))))


def split(ctx: NodeContext) -> Result:
    axis, parts = ctx.axis(0), len(ctx.node.outputs)
    extent = ctx.shape()[axis]
    sizes = ctx.optional_ints(1, "split", "sizes")
    if not sizes:
        each = -(-extent // parts)
        sizes = [each] * (parts - 1) + [extent - each * (parts - 1)]
    if sum(sizes) != extent or len(sizes) != parts:
        raise ctx.fail(f"sizes {sizes} do not split {extent} elements into {parts}", "mend or re-export the model")
    if parts == 1:
        return [ctx.inputs[0]]
    ends = np.cumsum(sizes)[:-1].tolist()
    whole = ctx.emit.emit(relax.op.split(ctx.tensor(0), ends, axis))
    return [relax.TupleGetItem(whole, i) for i in range(parts)]


def slice_(ctx: NodeContext) -> Result:
    if ctx.opset < 10:
        starts, ends, axes, steps = ctx.get("starts"), ctx.get("ends"), ctx.get("axes"), None
    else:
        starts, ends, axes, steps = (
            ctx.optional_ints(i, "", what) for i, what in enumerate(("starts", "ends", "axes", "steps"), 1)
        )
    shape = ctx.shape()
    axes = [a % len(shape) for a in axes] if axes else list(range(len(starts)))
    steps = steps or [1] * len(starts)
    ranges = {
        axis: range(*slice(start, end, step).indices(shape[axis]))
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }
    return sliced(ctx, ranges)


def sliced(ctx: NodeContext, ranges: dict[int, range]) -> Result:
    """The elements that each axis' range names; descending ranges are sliced and flipped."""
    shape = ctx.shape()
    if any(len(r) == 0 for r in ranges.values()):
        return np.zeros([len(ranges.get(i, range(n))) for i, n in enumerate(shape)], ctx.dtype())
    cut = {axis: r for axis, r in ranges.items() if r not in (range(shape[axis]), range(shape[axis])[::-1])}
    y = ctx.tensor(0)
    if cut:
        up = [r if r.step > 0 else r[::-1] for r in cut.values()]
        y = relax.op.strided_slice(
            y, list(cut), [r.start for r in up], [r[-1] + 1 for r in up], [r.step for r in up], assume_inbound=True
        )
    for axis, r in ranges.items():
        if r.step < 0 and len(r) > 1:
            y = relax.op.flip(y, axis)
    return y


def pad(ctx: NodeContext) -> Result:
    rank, shape = len(ctx.shape()), ctx.shape()
    mode = ctx.get("mode", "constant")
    pads = ctx.ints(1, "pads", "padding")
    value = ctx.get("value", 0.0) if ctx.opset < 11 else ctx.optional_constant(2, "padding value")
    value = 0.0 if value is None else float(np.asarray(value).item())
    axes = ctx.optional_ints(3, "", "axes") or list(range(rank))
    if mode not in PAD_MODES:
        raise ctx.unsupported(f"padding mode {mode!r}")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[len(axes) + i]
    cut = {i: range(max(-before[i], 0), n - max(-after[i], 0)) for i, n in enumerate(shape)}
    y = sliced(ctx, cut)
    flat = [max(p, 0) for pair in zip(before, after, strict=True) for p in pair]
    if not any(flat):
        return y
    return relax.op.nn.pad(y, flat, PAD_MODES[mode], value)


def cast(ctx: NodeContext) -> Result:
    target = str(onnx.helper.tensor_dtype_to_np_dtype(ctx.get("to")))
    return ctx.inputs[0] if target == ctx.dtype() else relax.op.astype(ctx.tensor(0), target)


def cast_like(ctx: NodeContext) -> Result:
    target = ctx.dtype(1)
    return ctx.inputs[0] if target == ctx.dtype() else relax.op.astype(ctx.tensor(0), target)


def where(ctx: NodeContext) -> Result:
    return relax.op.where(ctx.tensor(0), ctx.tensor(1), ctx.tensor(2))


def shape(ctx: NodeContext) -> Result:
    whole = np.asarray(ctx.shape(), np.int64)
    return whole[slice(ctx.get("start", 0), ctx.get("end"))]


def size(ctx: NodeContext) -> Result:
    return np.asarray(prod(ctx.shape()), np.int64)


def identity(ctx: NodeContext) -> Result:
    return ctx.inputs[0]


def dropout(ctx: NodeContext) -> Result:
    return [ctx.inputs[0], np.ones(ctx.shape(), bool)]


def depth_to_space(ctx: NodeContext) -> Result:
    block, (n, c, h, w) = ctx.get("blocksize"), ctx.shape()
    depth = c // block**2
    if c % block**2:
        raise ctx.fail(f"{_x(ctx.shape())} does not divide into blocks of {block}", "mend or re-export the model")
    if ctx.get("mode", "DCR") == "DCR":
        apart = relax.op.reshape(ctx.tensor(0), (n, block, block, depth, h, w))
        order = [0, 3, 4, 1, 5, 2]
    else:
        apart = relax.op.reshape(ctx.tensor(0), (n, depth, block, block, h, w))
        order = [0, 1, 4, 2, 5, 3]
    return relax.op.reshape(relax.op.permute_dims(apart, order), (n, depth, h * block, w * block))


def space_to_depth(ctx: NodeContext) -> Result:
    block, (n, c, h, w) = ctx.get("blocksize"), ctx.shape()
    if h % block or w % block:
        raise ctx.fail(f"{_x(ctx.shape())} does not divide into blocks of {block}", "mend or re-export the model")
    apart = relax.op.reshape(ctx.tensor(0), (n, c, h // block, block, w // block, block))
    moved = relax.op.permute_dims(apart, [0, 3, 5, 1, 2, 4])
    return relax.op.reshape(moved, (n, c * block**2, h // block, w // block))


CONVERTERS = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Expand": expand,
    "Tile": tile,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Pad": pad,
    "Cast": cast,
    "CastLike": cast_like,
    "Where": where,
    "Shape": shape,
    "Size": size,
    "Identity": identity,
    "Dropout": dropout,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
