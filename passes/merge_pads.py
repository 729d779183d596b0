"""Padding by zeros in front of an operator that pads by zeros itself."""

from __future__ import annotations

from tvm import relax

from qcompile.passes.base import Draft, local_pass, op_name, refused

CONVOLUTIONS = {"nn.conv1d": relax.op.nn.conv1d, "nn.conv2d": relax.op.nn.conv2d}
POOLS = {"nn.avg_pool1d": relax.op.nn.avg_pool1d, "nn.avg_pool2d": relax.op.nn.avg_pool2d}


@local_pass("MergePads")
def merge_pads(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """``conv2d(pad(x, p), w, padding=q)``  ->  ``conv2d(x, w, padding=p + q)``

    for constant padding by zero of spatial axes; also into an average pool that counts its padding (one without padding
    of its own counts that of the pad from then on). The pad itself stays for other readers that it may have.
    """
    kind = op_name(value)
    if kind not in CONVOLUTIONS and kind not in POOLS:
        return None
    pad = draft.definition(value.args[0])
    if op_name(pad) != "nn.pad":
        return None
    if (reason := judge(value, pad)) is not None:
        return refused(name, reason)
    before, after = spatial(pad)
    half = len(before)
    own = [int(p) for p in value.attrs.padding]
    padding = [p + q for p, q in zip([*before, *after], own, strict=True)]
    assert len(own) == 2 * half
    attrs = value.attrs
    if kind in CONVOLUTIONS:
        return CONVOLUTIONS[kind](
            pad.args[0],
            value.args[1],
            strides=list(attrs.strides),
            padding=padding,
            dilation=list(attrs.dilation),
            groups=attrs.groups,
            data_layout=attrs.data_layout,
            kernel_layout=attrs.kernel_layout,
            out_layout=attrs.out_layout,
            out_dtype=attrs.out_dtype,
        )
    return POOLS[kind](
        pad.args[0],
        pool_size=list(attrs.pool_size),
        strides=list(attrs.strides),
        padding=padding,
        dilation=list(attrs.dilation),
        ceil_mode=attrs.ceil_mode,
        count_include_pad=True,
        layout=attrs.layout,
        out_layout=attrs.out_layout,
    )


def spatial(pad: relax.Call) -> tuple[list[int], list[int]]:
    """Elements (before, after) of the spatial axes that a pad adds."""
    width = [int(p) for p in pad.attrs.pad_width]
    return width[4::2], width[5::2]


def judge(value: relax.Call, pad: relax.Call) -> str | None:
    width = [int(p) for p in pad.attrs.pad_width]
    attrs = value.attrs
    if pad.attrs.pad_mode != "constant" or float(pad.attrs.pad_value) != 0.0:
        return "the pad is not by zero"
    if any(width[:4]) or min(width) < 0:
        return "the pad is not of spatial axes only"
    layout = attrs.data_layout if op_name(value) in CONVOLUTIONS else attrs.layout
    if not str(layout).startswith("NC"):
        return f"layout {layout}"
    if op_name(value) in POOLS:
        if attrs.ceil_mode:
            return "the pool's last window may reach beyond the padding"
        if not attrs.count_include_pad and any(int(p) for p in attrs.padding):
            return "the pool does not count its own padding"
    return None
