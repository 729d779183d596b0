"""What lowering to CUDA launches, and moves, on the smallest graphs."""

from __future__ import annotations

import pytest
from tvm import relax

from qcompile.errors import QCompileError
from qcompile.passes.lower_cuda import lower_cuda
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import integer_of

op = relax.op


def conv(b, x, outputs, name="y", seed=0, **options):
    weights = weight(outputs, int(x.ty.shape[1]), 3, 3, seed=seed)
    return b.emit(op.nn.conv2d(x, weights, padding=(1, 1), **options), name)


def lowered(write, **inputs):
    return lower_cuda(integer_of(module(write, **inputs)))


def kernels(write, **inputs) -> list[str]:
    return [note.op for note in lowered(write, **inputs)[1]]


def test_images_stay_channels_last_between_the_ends():
    assert kernels(lambda b, x: [conv(b, conv(b, x, 16, "c"), 16)], x=(1, 16, 8, 8)) == [
        "quantize",
        "conv2d",
        "conv2d",
        "relayout",
    ]


def test_pooled_pixels_are_matrices_as_they_lie():
    def write(b, x):
        c = conv(b, x, 20, "c")
        p = b.emit(op.mean(c, [2, 3]), "p")
        return [b.emit(op.matmul(p, weight(20, 10)), "y")]

    assert kernels(write, x=(2, 3, 8, 8)) == ["quantize", "conv2d", "mean", "dense"]


def test_equal_kernels_are_shared():
    program, notes = lowered(lambda b, x: [conv(b, conv(b, conv(b, x, 16, "a"), 16, "b", 1), 16)], x=(1, 16, 8, 8))
    assert len(program.launches) == len(notes) == 5
    assert program.kernels.count("QC_KERNEL") == len({launch.kernel for launch in program.launches})


def test_intermediates_share_memory():
    program, _ = lowered(
        lambda b, x: [conv(b, conv(b, conv(b, conv(b, x, 16, "a"), 16, "b", 1), 16, "c", 2), 16)], x=(1, 16, 32, 32)
    )
    assert program.workspace < 7 * 16 * 32 * 32  # two of codes at a time, and the floats of the end


def test_the_last_kernel_writes_the_result():
    program, _ = lowered(lambda b, x: [b.emit(op.matmul(x, weight(20, 10)), "y")], x=(4, 20))
    assert program.launches[-1].arguments[-1] == ("output0", 0)
    assert program.launches[0].arguments[0] == ("input0", 0)


def test_a_layer_without_a_kernel_is_named():
    def write(b, x):
        return [b.emit(op.nn.layer_norm(x, weight(8), weight(8), axes=[-1]), "normed")]

    with pytest.raises(
        QCompileError, match="normed: there is no CUDA kernel of nn.layer_norm yet; build the model for a"
    ):
        lowered(write, x=(4, 8))
