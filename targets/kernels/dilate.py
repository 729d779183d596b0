"""Spreads the pixels of an image apart: what turns a transposed convolution into an ordinary one."""

from __future__ import annotations

from tvm import tirx

from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.sweep import parallel
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def dilate(strides: tuple[int, int], x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """Pixel (h, w) of x goes to (h * strides[0], w * strides[1]) of ``out``; what lies between is ``out.fill``.

    Both are blocked alike, of one dtype.
    """
    batch, _, height, width = x.image
    lanes = x.block
    top, left, bottom, right = out.border
    _, _, out_height, out_width = out.image

    def body(source: b.Buffer, y: b.Buffer) -> None:
        fill = b.splat(out.fill, out.bits, lanes)
        with b.loop(batch * x.blocks, parallel(target, x, out)) as plane:
            n, block = plane // x.blocks, plane % x.blocks
            start = out.pixel(n, block, -top, -left)
            with b.loop((top + out_height + bottom) * (left + out_width + right)) as pixel:
                b.store(y, start + pixel * lanes, fill, lanes)
            with b.loop(height) as h, b.loop(width) as w:
                value = b.load(source, x.pixel(n, block, h, w), lanes)
                b.store(y, out.pixel(n, block, h * strides[0], w * strides[1]), value, lanes)

    return b.kernel("dilate", [("x", x.bits, x.numel), ("y", out.bits, out.numel)], body)
