"""One layer at a time: strategies of ``Case``, for the tests of the oracle's functions and of kernels.

``dtypes`` are the code types to draw from; ``integer=False`` gives float layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from qcompile import ops
from qcompile.ops import Affine
from tests.properties import layers, values
from tests.properties.values import Draw

UINT8 = ("uint8",)


@dataclass(frozen=True)
class Case:
    """A spec, all its arguments, its result's shape and dtype.

    activations: positions of the arguments that are not constants of the model.
    """

    spec: ops.Spec
    args: tuple[np.ndarray, ...]
    shape: tuple[int, ...]
    dtype: str
    activations: tuple[int, ...] = (0,)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{a.dtype}{list(a.shape)}" for a in self.args)
        return f"Case({self.spec}, args: {arguments}, result: {self.dtype}{list(self.shape)})"


@st.composite
def images(draw: Draw, rank: int = 2) -> tuple[int, ...]:
    """(N, C, H, W), or (N, C, W) for rank 1; single pixels, odd extents, and enough pixels for a kernel's main loop."""
    spatial = [draw(st.sampled_from((1, 2, 5, 7, 9) if rank == 2 else (1, 3, 8, 19))) for _ in range(rank)]
    return (draw(st.integers(1, 3)), draw(st.sampled_from(values.CHANNELS)), *spatial)


def _layer_case(make: Callable, shapes: st.SearchStrategy, residual: bool = True) -> Callable[..., st.SearchStrategy]:
    """A strategy function for layers with one activation and an epilogue; those with weights may have a residual."""

    @st.composite
    def case(draw: Draw, dtypes: Sequence[str] = UINT8, integer: bool = True) -> Case:
        shape = draw(shapes)
        q = draw(values.affines(dtypes)) if integer else None
        layer = make(draw, shape, q, draw(values.epilogues(dtypes, residual, integer)))
        x = values.codes(draw, shape, q) if q else values.floats(draw, shape)
        args, activations = [x, *layer.constants], [0]
        if (extra := _residual(draw, layer.spec.epilogue, layer.shape)) is not None:
            activations.append(len(args))
            args.append(extra)
        return Case(layer.spec, tuple(args), layer.shape, layer.dtype, tuple(activations))

    return case


def _residual(draw: Draw, epilogue: ops.Epilogue, shape: tuple[int, ...]) -> np.ndarray | None:
    if epilogue.residual:
        return values.codes(draw, shape, epilogue.residual)
    return values.floats(draw, shape) if epilogue.residual_is_float else None


_ANY_IMAGE = images() | images(rank=1)
_MATRICES = st.lists(st.integers(1, 3), max_size=2).flatmap(
    lambda lead: st.sampled_from((1, 3, 4, 17, 63, 64, 65)).map(lambda k: (*lead, k))
)
_ANY_SHAPE = images() | _MATRICES

conv2d_case = _layer_case(layers.conv2d, images())
conv1d_case = _layer_case(layers.conv2d, images(rank=1))
conv_transpose2d_case = _layer_case(layers.conv_transpose2d, images())
dense_case = _layer_case(layers.dense, _MATRICES)
avg_pool2d_case = _layer_case(layers.avg_pool2d, _ANY_IMAGE, residual=False)
mean_case = _layer_case(layers.mean, _ANY_SHAPE, residual=False)
resize_linear_case = _layer_case(layers.resize_linear, images(), residual=False)  # codes only
softmax_case = _layer_case(layers.softmax, _ANY_SHAPE, residual=False)  # codes only


@st.composite
def binary_case(draw: Draw, dtypes: Sequence[str] = UINT8, integer: bool = True) -> Case:
    """Equal shapes, a vector of channels, one number, or axes of extent 1 against longer ones on both sides."""
    shape = draw(_ANY_SHAPE)
    other = tuple(e if draw(st.booleans()) else 1 for e in shape)
    shapes = [shape, draw(st.sampled_from((shape, other, shape[1:], ())))]
    if draw(st.booleans()):
        shapes.reverse()
    q = [draw(values.affines(dtypes)) if integer else None for _ in shapes]
    epilogue = draw(values.epilogues(dtypes, residual=False, integer=integer))
    args = tuple(values.codes(draw, s, a) if a else values.floats(draw, s) for s, a in zip(shapes, q, strict=True))
    kind = draw(st.sampled_from(("add", "subtract", "multiply")))
    spec = ops.Binary(kind, *q, epilogue)
    return Case(spec, args, shape, epilogue.out.dtype if epilogue.out else "float32", (0, 1))


@st.composite
def lookup_case(draw: Draw, dtypes: Sequence[str] = UINT8) -> Case:
    shape, x = draw(_ANY_SHAPE), draw(values.affines(dtypes))
    out = draw(st.none() | values.affines(dtypes))
    table = values.codes(draw, (256,), out) if out else values.floats(draw, (256,))
    spec = ops.Lookup("sigmoid", x, out)
    return Case(spec, (values.codes(draw, shape, x), table), shape, str(table.dtype))


@st.composite
def requantize_case(draw: Draw, dtypes: Sequence[str] = UINT8) -> Case:
    shape, x, out = draw(_ANY_SHAPE), draw(values.affines(dtypes)), draw(values.affines(dtypes))
    return Case(ops.Requantize(x, out), (values.codes(draw, shape, x),), shape, out.dtype)


@st.composite
def concat_case(draw: Draw, dtypes: Sequence[str] = UINT8) -> Case:
    """Two or three inputs, of other codes than the result or of the same."""
    shape = draw(images())
    axis = draw(st.integers(0, 3))
    out = draw(values.affines(dtypes))
    inputs = tuple(draw(st.just(out) | values.affines(dtypes)) for _ in range(draw(st.integers(2, 3))))
    extents = [draw(st.sampled_from((1, 3, 16, 17))) for _ in inputs]
    args = tuple(
        values.codes(draw, (*shape[:axis], extent, *shape[axis + 1 :]), q)
        for q, extent in zip(inputs, extents, strict=True)
    )
    result = (*shape[:axis], sum(extents), *shape[axis + 1 :])
    return Case(ops.Concat(axis, inputs, out), args, result, out.dtype, tuple(range(len(args))))


@st.composite
def channel_shuffle_case(draw: Draw) -> Case:
    groups = draw(st.integers(1, 4))
    n, c, *spatial = draw(_ANY_IMAGE)
    shape = (n, groups * c, *spatial)
    return Case(ops.ChannelShuffle(groups), (values.codes(draw, shape, Affine(1.0, 0)),), shape, "uint8")


def any_case(dtypes: Sequence[str] = UINT8) -> st.SearchStrategy[Case]:
    """Any spec on codes."""
    makers = (
        conv2d_case,
        conv1d_case,
        conv_transpose2d_case,
        dense_case,
        avg_pool2d_case,
        mean_case,
        resize_linear_case,
    )
    more = (softmax_case, binary_case, lookup_case, requantize_case, concat_case)
    return st.one_of(*(make(dtypes) for make in (*makers, *more)), channel_shuffle_case())
