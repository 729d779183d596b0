"""Resize and Upsample.

``image.resize2d`` where it computes the same; else, for each axis, one ``take`` (nearest) or one product with a matrix.
The matrix is what the onnx package's own Resize makes of the identity matrix, so every option means what ONNX says.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor, prod

import numpy as np
from tvm import relax

from qcompile.frontend.context import NodeContext, Result
from qcompile.frontend.fold import run_operator

METHODS = {"nearest": "nearest_neighbor", "linear": "linear", "cubic": "cubic"}
DIRECT_COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
OPTIONS = (
    "mode",
    "coordinate_transformation_mode",
    "nearest_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "extrapolation_value",
    "antialias",
)


def resize(ctx: NodeContext) -> Result:
    options = {name: ctx.get(name) for name in OPTIONS if ctx.get(name) is not None}
    options.setdefault("mode", "nearest")
    if ctx.node.op_type == "Upsample" or ctx.opset < 11:
        options |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if options.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise ctx.unsupported("coordinate_transformation_mode tf_crop_and_resize")
    shape = ctx.shape()
    sizes, scales = _target(ctx)
    if sizes == shape:
        return ctx.inputs[0]
    if _is_direct(shape, sizes, scales, options):
        return relax.op.image.resize2d(
            ctx.tensor(0),
            sizes[2:],
            layout="NCHW",
            method=METHODS[options["mode"]],
            coordinate_transformation_mode=options.get("coordinate_transformation_mode", "half_pixel"),
            rounding_method=options.get("nearest_mode", "round_prefer_floor"),
            cubic_alpha=options.get("cubic_coeff_a", -0.75),
        )
    y = ctx.tensor(0)
    for axis, (have, want, scale) in enumerate(zip(shape, sizes, scales, strict=True)):
        if have != want:
            if options["mode"] == "nearest":
                nearest = relax.op.take(y, ctx.as_expr(_nearest(ctx, have, want, scale, options)), axis, mode="clip")
            else:
                nearest = _interpolate(ctx, y, axis, _matrix(ctx, have, want, scale, options))
            y = ctx.emit.emit(nearest)
    return y


def _target(ctx: NodeContext) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Size and scale of every axis."""
    shape = ctx.shape()
    where = 1 if ctx.node.op_type == "Upsample" or ctx.opset < 11 else 2
    scales = ctx.get("scales")
    if scales is None:
        scales = ctx.optional_constant(where, "scales")
    sizes = ctx.optional_constant(3, "sizes") if ctx.opset >= 11 else None
    axes = [a % len(shape) for a in ctx.get("axes") or range(len(shape))]
    if sizes is not None and len(sizes):
        return _from_sizes(ctx, dict(zip(axes, (int(s) for s in sizes), strict=True)))
    if scales is None:
        raise ctx.fail("it has neither scales nor sizes", "mend or re-export the model")
    factors = dict(zip(axes, (float(np.float32(s)) for s in scales), strict=True))
    every = tuple(factors.get(i, 1.0) for i in range(len(shape)))
    return tuple(floor(n * s) for n, s in zip(shape, every, strict=True)), every


def _from_sizes(ctx: NodeContext, wanted: dict[int, int]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    shape, policy = ctx.shape(), ctx.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        pick = min if policy == "not_larger" else max
        scale = pick(size / shape[axis] for axis, size in wanted.items())
        wanted = {axis: floor(scale * shape[axis] + 0.5) for axis in wanted}
        scales = tuple(scale if i in wanted else 1.0 for i in range(len(shape)))
        return tuple(wanted.get(i, n) for i, n in enumerate(shape)), scales
    sizes = tuple(wanted.get(i, n) for i, n in enumerate(shape))
    return sizes, tuple(size / n for size, n in zip(sizes, shape, strict=True))


def _is_direct(shape: tuple[int, ...], sizes: tuple[int, ...], scales: tuple[float, ...], options: dict) -> bool:
    """Whether TVM's resize2d means the same: it knows sizes only, so the scale must be their ratio."""
    return (
        len(shape) == 4
        and shape[:2] == sizes[:2]
        and all(abs(want / have - scale) < 1e-6 for have, want, scale in zip(shape, sizes, scales, strict=True))
        and options.get("coordinate_transformation_mode", "half_pixel") in DIRECT_COORDINATES
        and not options.get("antialias")
        and (options["mode"] == "linear" or (options["mode"] == "nearest" and _whole(shape, sizes)))
        and 1 not in sizes[2:]
    )


def _whole(shape: tuple[int, ...], sizes: tuple[int, ...]) -> bool:
    """Whole ratios: no rounding error can choose another neighbour."""
    return all(want % have == 0 for have, want in zip(shape, sizes, strict=True))


def _nearest(ctx: NodeContext, have: int, want: int, scale: float, options: dict) -> np.ndarray:
    """Index of the element that each output element takes, in float32 as ONNX Runtime computes it."""
    at, factor, half = np.arange(want, dtype=np.float32), np.float32(scale), np.float32(0.5)
    coordinates = options.get("coordinate_transformation_mode", "half_pixel")
    if coordinates == "asymmetric":
        at = at / factor
    elif coordinates == "align_corners":
        at = at * np.float32(have - 1) / np.float32(max(want - 1, 1))
    elif coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and want > 1):
        at = (at + half) / factor - half
    elif coordinates == "pytorch_half_pixel":
        at = at * 0
    else:
        raise ctx.unsupported(f"coordinate_transformation_mode {coordinates} of nearest neighbours")
    rounding: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda x: np.ceil(x - half),
        "round_prefer_ceil": lambda x: np.floor(x + half),
    }
    nearest = rounding[options.get("nearest_mode", "round_prefer_floor")](at)
    return np.clip(nearest, 0, have - 1).astype(np.int64)


def _matrix(ctx: NodeContext, have: int, want: int, scale: float, options: dict) -> np.ndarray:
    """(have, want): column j holds the weights of output element j."""
    feeds = [np.eye(have, dtype=np.float32), None]
    if abs(scale - want / have) < 1e-6 or options.get("coordinate_transformation_mode") == "align_corners":
        feeds += [None, np.asarray([have, want], np.int64)]
    else:
        feeds += [np.asarray([1.0, scale], np.float32)]
    matrix = run_operator("Resize", feeds, max(ctx.opset, 13), **options)
    if matrix is None or matrix.shape != (have, want):
        raise ctx.unsupported(f"resizing {have} to {want} elements with {options}")
    return matrix


def _interpolate(ctx: NodeContext, y: relax.Expr, axis: int, matrix: np.ndarray) -> relax.Expr:
    shape = [int(d) for d in y.ty.shape.values]
    flat = relax.op.reshape(y, (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])))
    mixed = relax.op.matmul(ctx.as_expr(np.ascontiguousarray(matrix.T).astype(ctx.dtype())), flat)
    return relax.op.reshape(mixed, [*shape[:axis], matrix.shape[1], *shape[axis + 1 :]])


CONVERTERS = {"Resize": resize, "Upsample": resize}
