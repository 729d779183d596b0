"""Convolution windows without the taps that never see the image."""

from __future__ import annotations

from tvm import relax
from tvm.ir import GenericConst

from qcompile.passes.base import Draft, local_pass, op_name, refused, shape_of
from qcompile.passes.merge_pads import CONVOLUTIONS


@local_pass("CropWindows")
def crop_windows(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """``conv2d(x (14 x 14), w (3 x 3), dilation=24, padding=24)``  ->  ``conv2d(x, w[1:2, 1:2])``

    Rows and columns at the window's edge that lie in the padding wherever the window stands, as those of strongly
    dilated convolutions do (atrous pyramids on small images). They cost products with zeros, and wide borders.
    """
    kind = op_name(value)
    if kind not in CONVOLUTIONS or not isinstance(value.args[1], GenericConst):
        return None
    attrs = value.attrs
    if (attrs.data_layout, attrs.kernel_layout) not in (("NCW", "OIW"), ("NCHW", "OIHW")):
        return None
    kernel, image = shape_of(value.args[1])[2:], shape_of(value.args[0])[2:]
    rank = len(kernel)
    padding, strides, dilation = ([int(n) for n in v] for v in (attrs.padding, attrs.strides, attrs.dilation))
    before, after = padding[:rank], padding[rank:]
    cuts = []
    for axis, (size, extent) in enumerate(zip(kernel, image, strict=True)):
        starts = range(-before[axis], shape_of(value)[2 + axis] * strides[axis] - before[axis], strides[axis])
        taps = [i for i in range(size) if any(0 <= start + i * dilation[axis] < extent for start in starts)]
        cut = slice(taps[0], taps[-1] + 1) if taps else slice(0, size)
        before[axis] -= cut.start * dilation[axis]
        after[axis] -= (size - cut.stop) * dilation[axis]
        dilation[axis] = dilation[axis] if cut.stop - cut.start > 1 else 1
        cuts.append(cut)
    if all(cut == slice(0, size) for cut, size in zip(cuts, kernel, strict=True)):
        return None
    if min(*before, *after) < 0:
        return refused(name, "its window, cropped, would not see all of the image")
    weight = value.args[1].value.numpy()[(slice(None), slice(None), *cuts)]
    return CONVOLUTIONS[kind](
        value.args[0],
        relax.const(weight, str(weight.dtype)),
        strides=strides,
        padding=[*before, *after],
        dilation=dilation,
        groups=attrs.groups,
        data_layout=attrs.data_layout,
        kernel_layout=attrs.kernel_layout,
        out_layout=attrs.out_layout,
        out_dtype=attrs.out_dtype,
    )
