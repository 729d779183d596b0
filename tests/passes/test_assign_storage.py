"""Where tensors lie, on the smallest graphs that show each rule. Storages are read by variable name."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile.assign.uniform import plan_uniform
from qcompile.ops import Conv2d, Epilogue
from qcompile.passes.assign_storage import assign_storage, needed_border
from qcompile.targets.storage import Storage
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import integer_of, model_of

op = relax.op


def storages(write, form=integer_of, **inputs) -> dict[str, Storage]:
    before = module(write, **inputs)
    return {var.name: s for var, s in assign_storage(form(before)).items()}


def conv(b, x, outputs, name="y", window=3, **options):
    options.setdefault("padding", (window // 2, window // 2))
    channels = int(x.ty.shape[1]) // options.get("groups", 1)
    return b.emit(op.nn.conv2d(x, weight(outputs, channels, window, window), **options), name)


def test_images_are_blocked_and_inputs_and_outputs_plain():
    def write(b, x):
        return [conv(b, conv(b, x, 20, "c"), 8)]

    found = storages(write, x=(1, 16, 6, 6))
    assert not found["x"].blocked and found["x"].dtype == "float32"
    assert found["x.q"].block == found["c"].block == 16
    assert found["c"].dtype == "uint8"


def test_the_producer_writes_the_border_that_its_readers_want():
    def write(b, x):
        c = conv(b, x, 16, "c")
        return [
            conv(b, c, 8, "y", window=5),
            conv(b, c, 8, "z", window=3, strides=(2, 2)),
            conv(b, c, 8, "p", window=1),
        ]

    before = module(write, x=(1, 16, 6, 6))
    form = integer_of(before)
    found = {var.name: s for var, s in assign_storage(form).items()}
    assert found["c"].border == (2, 2, 2, 2)
    assert found["c"].fill != 0  # the zero point: the sums run over both signs
    assert found["x.q"].border == (1, 1, 1, 1)


def test_images_of_few_channels_lie_side_by_side():
    def stem(b, x):
        return [conv(b, x, 16)]

    assert storages(stem, x=(1, 3, 6, 6))["x.q"].block == 3
    assert storages(stem, x=(1, 4, 6, 6))["x.q"].block == 4
    assert storages(stem, x=(1, 5, 6, 6))["x.q"].block == 16

    def depthwise(b, x):
        return [conv(b, x, 3, groups=3)]

    assert storages(depthwise, x=(1, 3, 6, 6))["x.q"].block == 16


def test_elementwise_layers_follow_their_neighbours():
    def write(b, x):
        c, d = conv(b, x, 16, "c"), conv(b, x, 16, "d")
        s = b.emit(op.multiply(c, d), "s")
        m = b.emit(op.sigmoid(s), "m")
        both = b.emit(op.concat([m, c], 1), "both")
        return [conv(b, both, 8)]

    found = storages(write, x=(1, 16, 6, 6))
    assert [found[n].block for n in ("c", "s", "m", "both")] == [16] * 4


def test_matrices_and_what_no_image_layer_touches_are_plain():
    def write(b, x):
        r = b.emit(op.reshape(b.emit(op.sigmoid(x), "s"), (1, 64)), "r")
        return [b.emit(op.matmul(r, weight(64, 5)), "y")]

    assert not any(s.blocked for s in storages(write, x=(1, 16, 2, 2)).values())


def test_a_global_mean_reads_blocks():
    def write(b, x):
        c = conv(b, x, 24, "c")
        m = b.emit(op.mean(c, [2, 3], keepdims=True), "m")
        flat = b.emit(op.reshape(m, (1, 24)), "flat")
        return [b.emit(op.matmul(flat, weight(24, 5)), "y")]

    found = storages(write, x=(1, 16, 6, 6))
    assert found["c"].blocked and found["m"].blocked
    assert not found["flat"].blocked and not found["y"].blocked


def test_an_island_is_plain():
    def write(b, x):
        c = conv(b, x, 16, "c")
        return [b.emit(op.cumsum(c, 1), "island")]

    found = storages(write, x=(1, 16, 6, 6))
    assert not found["island"].blocked


def test_every_part_of_a_split_follows():
    def write(b, x):
        parts = b.emit(op.split(conv(b, x, 32, "c"), 2, 1), "parts")
        first, second = (b.emit(relax.TupleGetItem(parts, i), f"part{i}") for i in range(2))
        return [conv(b, first, 8), conv(b, second, 8, "z")]

    found = storages(write, x=(1, 16, 6, 6))
    assert found["part0"].blocked and found["part1"].blocked


def test_sequences_have_no_border_above():
    def write(b, x):
        c = b.emit(op.nn.conv1d(x, weight(16, 16, 3), padding=(1, 1)), "c")
        return [b.emit(op.nn.conv1d(c, weight(8, 16, 3), padding=(1, 1)), "y")]

    assert storages(write, x=(1, 16, 9))["c"].border == (0, 1, 0, 1)


@pytest.mark.parametrize(
    ("x", "window", "strides", "padding", "dilation", "border"),
    [
        ((6, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (1, 1, 1, 1)),
        ((6, 6), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), (1, 1, 0, 0)),  # the last window ends inside
        ((6, 6), (3, 3), (2, 2), (0, 0, 1, 1), (1, 1), (0, 0, 1, 1)),
        ((7, 5), (3, 1), (1, 1), (2, 0, 2, 0), (2, 1), (2, 0, 2, 0)),
        ((4, 4), (1, 1), (3, 3), (0, 0, 0, 0), (1, 1), (0, 0, 0, 0)),
        ((1, 1), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (1, 1, 1, 1)),
    ],
)
def test_a_border_reaches_as_far_as_windows_do(x, window, strides, padding, dilation, border):
    spec = Conv2d(strides, padding, dilation, 1, None, Epilogue())
    padded = np.pad(np.zeros(x), (padding[::2], padding[1::2]))
    out = [(e - d * (k - 1) - 1) // s + 1 for e, k, s, d in zip(padded.shape, window, strides, dilation, strict=True)]
    assert needed_border(spec, (1, 8, *x), (8, 8, *window), (1, 8, *out)) == border


def test_float_layers_are_blocked_alike():
    def write(b, x):
        return [conv(b, conv(b, x, 20, "c"), 8)]

    found = storages(write, lambda m: integer_of(m, precision="fp32"), x=(1, 3, 6, 6))
    assert (found["c"].block, found["c"].dtype, found["c"].fill, found["c"].border) == (16, "float32", 0, (1, 1, 1, 1))


def bfloat16_storages(write, **inputs) -> dict[str, str]:
    """The types of tensors of which every layer that can be is bfloat16."""
    before = module(write, **inputs)
    plan = plan_uniform(model_of(before), None, "bf16")
    return {var.name: s.dtype for var, s in assign_storage(integer_of(before, plan)).items()}


def test_what_everyone_rounds_is_stored_rounded():
    """As an operand, a residual, or through a pooling by maximum, which has no other reader."""

    def write(b, x):
        c = conv(b, x, 16, "c")
        m = b.emit(op.nn.max_pool2d(c, (2, 2), (2, 2)), "m")
        d = conv(b, m, 16, "d")
        return [b.emit(op.add(conv(b, d, 16, "e"), d), "y")]

    found = bfloat16_storages(write, x=(1, 3, 8, 8))
    assert found == {"x": "float32", "c": "bfloat16", "m": "bfloat16", "d": "bfloat16", "y": "float32"}


def test_one_reader_of_float32_is_enough():
    def write(b, x):
        c = conv(b, x, 16, "c")
        return [conv(b, c, 8, "y"), b.emit(op.mean(c, [2, 3], keepdims=True), "mean")]

    found = bfloat16_storages(write, x=(1, 3, 8, 8))
    assert found["c"] == "float32"
    found = bfloat16_storages(
        lambda b, x: [conv(b, conv(b, x, 16, "c"), 8), b.emit(op.nn.relu(x), "r")], x=(1, 3, 8, 8)
    )
    assert found["c"] == "bfloat16"


def test_makers_that_cannot_round_write_float32():
    def write(b, x):
        s = b.emit(op.add(conv(b, x, 16, "c"), relax.const(np.ones((1, 1, 8, 8), np.float32))), "s")
        return [conv(b, s, 8, "y")]

    found = bfloat16_storages(write, x=(1, 3, 8, 8))
    assert found["c"] == found["s"] == "float32"


def test_a_layer_of_float32_reads_float32_even_if_its_result_is_rounded():
    def write(b, x):
        return [conv(b, conv(b, conv(b, x, 16, "c"), 16, "d"), 8)]

    before = module(write, x=(1, 3, 8, 8))
    plan = plan_uniform(model_of(before), None, "bf16", exclude=["d"])
    found = {var.name: s.dtype for var, s in assign_storage(integer_of(before, plan)).items()}
    assert (found["c"], found["d"]) == ("float32", "bfloat16")
