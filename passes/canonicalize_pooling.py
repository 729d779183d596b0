"""Global average pooling, in any form, as a mean over the spatial axes."""

from __future__ import annotations

from tvm import relax

from qcompile.passes.base import Draft, local_pass, op_name, shape_of

AVERAGES = ("nn.avg_pool1d", "nn.avg_pool2d")
ADAPTIVE = ("nn.adaptive_avg_pool1d", "nn.adaptive_avg_pool2d")


@local_pass("CanonicalizePooling")
def canonicalize_pooling(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """An average over whole images is ``mean(x, axis=[2, 3], keepdims=True)`` ([2] for a sequence)::

    avg_pool2d(x)            ->  mean(x)                 the window is the image, without padding
    adaptive_avg_pool2d(x)   ->  mean(x)                 to 1 x 1
    mean(x, keepdims=False)  ->  reshape(mean(x))        over all spatial axes
    """
    kind = op_name(value)
    if kind not in (*AVERAGES, *ADAPTIVE, "mean"):
        return None
    x = value.args[0]
    spatial = list(range(2, len(shape_of(x))))
    if kind == "mean":
        return _mean(draft, value, spatial, name)
    if not str(value.attrs.layout).startswith("NC") or any(extent != 1 for extent in shape_of(value)[2:]):
        return None
    return relax.op.mean(x, spatial, keepdims=True) if kind in ADAPTIVE or covers(value) else None


def covers(pool: relax.Call) -> bool:
    """Whether the one window of a pooling operator is the whole image."""
    window = tuple(int(k) for k in pool.attrs.pool_size)
    dense = all(int(d) == 1 for d in pool.attrs.dilation) and not any(int(p) for p in pool.attrs.padding)
    return dense and window == shape_of(pool.args[0])[2:]


def _mean(draft: Draft, value: relax.Call, spatial: list[int], name: str) -> relax.Expr | None:
    rank = len(shape_of(value.args[0]))
    axes = sorted(int(axis) % rank for axis in value.attrs.axis) if value.attrs.axis is not None else list(range(rank))
    if rank not in (3, 4) or axes != spatial or (rank == 3 and not value.attrs.keepdims):
        return None
    if value.attrs.keepdims:
        spelled = [int(axis) for axis in value.attrs.axis] == spatial
        return None if spelled else relax.op.mean(value.args[0], spatial, keepdims=True)
    mean = draft.emit(relax.op.mean(value.args[0], spatial, keepdims=True), draft.step(name, "mean"))
    return relax.op.reshape(mean, shape_of(value))
