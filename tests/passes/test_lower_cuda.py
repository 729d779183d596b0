"""What lowering to CUDA launches, and moves, on the smallest graphs."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.formats import FORMATS
from qcompile.passes.base import shape_of
from qcompile.passes.cuda_memory import Kernels
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.reference import interpreter
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import templates
from qcompile.targets.cuda.rows import ROWS
from tests.passes.float_modules import const, module, weight
from tests.passes.quantized_modules import feeds_of, integer_of

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


FLOATS = {  # format -> the type that its kernels are called by, tolerance
    "fp32": ("f32", 1e-5),
    # A sum in another order may round to the other neighbour, where the next layer reads it.
    "bf16": ("bf16", 2e-3),
    "half": ("f16", 3e-4),
    "fp8_e4m3": ("e4m3", 2e-2),
    "fp8_e5m2": ("e5m2", 4e-2),
    "w8": ("f32_int8", 1e-5),
    "fp16": ("f32_f16", 1e-5),
}
ADA = ROWS[0].narrowed("sm_89")  # the oldest that has them all


@pytest.mark.parametrize("precision", FLOATS)
def test_float_layers_are_near_the_oracle(precision):
    """On Tensor Cores, but depthwise ones and those whose groups begin between words."""
    kind, tolerance = FLOATS[precision]

    def write(b, x):
        first = b.emit(op.nn.relu(conv(b, x, 24, "c")), "r")
        grouped = b.emit(op.nn.conv2d(first, weight(24, 6, 3, 3, seed=2), padding=(1, 1), groups=4), "g")
        fine = b.emit(op.nn.conv2d(grouped, weight(24, 1, 3, 3, seed=3), padding=(1, 1), groups=24), "d")
        added = b.emit(op.add(b.emit(op.nn.conv2d(fine, weight(24, 24, 1, 1, seed=4)), "p"), first), "a")
        wide = b.emit(op.nn.conv2d(added, weight(40, 24, 3, 3, seed=5), strides=(2, 2)), "w")
        return [b.emit(op.matmul(b.emit(op.mean(wide, [2, 3]), "m"), weight(40, 10)), "y")]

    form = integer_of(module(write, x=(2, 5, 9, 9)), precision=precision)
    program, notes = lower_cuda(form, target=ADA)
    assert f"conv2d_{kind}" in {note.op for note in notes}
    assert any(note.note.startswith(f"mma {kind}") for note in notes) == (not kind.startswith("f32_"))
    feeds, got = feeds_of(form), np.zeros((2, 10), np.float32)
    Emulated(program.source, optimize=0).run(program, list(feeds.values()), [got])
    (want,) = interpreter.run(form, feeds).values()
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def test_float_layers_by_themselves_are_the_oracles():
    """But for the order of sums: what is rounded is rounded alike. w4 has groups, in windows and along rows."""

    def write(b, x):
        wide = b.emit(op.add(conv(b, x, 32, "c"), const(np.ones((1, 32, 1, 1), np.float32))), "a")
        return [wide, b.emit(op.matmul(b.emit(op.mean(x, [2, 3]), "m"), weight(32, 10, seed=3)), "y")]

    floats, kernels = [row.name for row in FORMATS.values() if not row.codes], Kernels()
    forms = {name: integer_of(module(write, x=(1, 32, 5, 6)), precision=name) for name in floats}
    programs = {name: lower_cuda(form, kernels, ADA)[0] for name, form in forms.items()}
    emulated = Emulated(templates() + kernels.text, optimize=0)
    for name, form in forms.items():
        feeds = feeds_of(form)
        wants = list(interpreter.run(form, feeds).values())
        gots = [np.zeros(want.shape, np.float32) for want in wants]
        emulated.run(programs[name], list(feeds.values()), gots)
        for got, want in zip(gots, wants, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.abs(want).max(), err_msg=name)


@pytest.mark.parametrize(("precision", "arch"), [("fp8_e4m3", "sm_80"), ("fp8_e5m2", "sm_75")])
def test_products_that_an_architecture_lacks_are_refused_by_layer(precision, arch):
    form = integer_of(module(lambda b, x: [conv(b, x, 16)], x=(1, 16, 4, 4)), precision=precision)
    reason = f"y: {precision} needs the Tensor Cores of sm_89 or newer, and this build is for {arch}; give --target"
    with pytest.raises(QCompileError, match=reason):
        lower_cuda(form, target=ROWS[0].narrowed(arch))


def test_int4_weights_give_the_oracles_bits():
    def write(b, x):
        first = b.emit(op.nn.relu(conv(b, x, 32, "c")), "r")
        second = b.emit(op.nn.conv2d(first, weight(32, 32, 3, 3, seed=2), padding=(1, 1)), "d")
        added = b.emit(op.nn.relu(b.emit(op.add(second, first), "a")), "s")
        grouped = b.emit(op.nn.conv2d(added, weight(32, 16, 1, 1, seed=3), groups=2), "g")
        return [b.emit(op.matmul(b.emit(op.mean(grouped, [2, 3]), "m"), weight(32, 10)), "y")]

    form = integer_of(module(write, x=(2, 3, 7, 9)), precision="w4a8")
    program, notes = lower_cuda(form)
    ops = [note.op for note in notes]
    assert ops.count("conv2d") == 1 and ops.count("conv2d_int4") == 2 and ops.count("dense_int4") == 1
    feeds, got = feeds_of(form), np.zeros((2, 10), np.float32)
    Emulated(program.source, optimize=0).run(program, list(feeds.values()), [got])
    np.testing.assert_array_equal(got, interpreter.run(form, feeds)["y"])


@pytest.mark.parametrize("precision", ["bf16", "half"])
def test_narrow_floats_stay_so_between_layers_that_read_them(precision):
    """Rows that are padded hold zeros behind their last channel, though clipping alone would not leave them."""

    def write(b, x):
        first = b.emit(op.clip(conv(b, x, 19, "c"), 0.5, 2.0), "r")
        second = b.emit(op.clip(b.emit(op.nn.conv2d(first, weight(19, 19, 1, 1, seed=2)), "d"), 0.5, 2.0), "s")
        fine = b.emit(op.nn.conv2d(second, weight(19, 1, 3, 3, seed=3), padding=(1, 1), groups=19), "f")
        added = b.emit(op.add(b.emit(op.nn.conv2d(fine, weight(19, 19, 1, 1, seed=4)), "p"), first), "a")
        return [b.emit(op.nn.conv2d(added, weight(7, 19, 1, 1, seed=5)), "y")]

    form = integer_of(module(write, x=(1, 8, 5, 7)), precision=precision)
    program, notes = lower_cuda(form)
    assert [note.op for note in notes].count("relayout") == 2  # of the input and the result
    feeds, got = feeds_of(form), np.zeros((1, 7, 5, 7), np.float32)
    Emulated(program.source, optimize=0).run(program, list(feeds.values()), [got])
    (want,) = interpreter.run(form, feeds).values()
    np.testing.assert_allclose(got, want, rtol=0, atol=FLOATS[precision][1] * np.abs(want).max())


@pytest.mark.parametrize("precision", ["bf16", "fp8_e4m3"])
def test_the_largest_of_narrow_floats_is_one(precision):
    def write(b, x):
        pooled = b.emit(op.nn.max_pool2d(conv(b, x, 32, "c"), (3, 3), strides=(2, 2), padding=(1, 1)), "p")
        return [b.emit(op.nn.conv2d(pooled, weight(7, 32, 1, 1, seed=5)), "y")]

    form = integer_of(module(write, x=(1, 8, 9, 7)), precision=precision)
    program, notes = lower_cuda(form, target=ADA)
    kind = FLOATS[precision][0]
    assert [note.op for note in notes] == ["relayout", f"conv2d_{kind}", "max_pool2d", f"conv2d_{kind}", "relayout"]
    feeds, got = feeds_of(form), np.zeros((1, 7, 5, 4), np.float32)
    Emulated(program.source, optimize=0).run(program, list(feeds.values()), [got])
    np.testing.assert_allclose(
        got, interpreter.run(form, feeds)["y"], rtol=0, atol=FLOATS[precision][1] * np.abs(got).max()
    )


def test_normalization_over_channels_is_near_the_oracle():
    def write(b, x):
        deep = b.emit(op.reshape(b.emit(op.multiply(x, x), "s"), (2, 1, 7, 5, 5)), "deep")
        mean = b.emit(op.nn.avg_pool3d(deep, (5, 1, 1), padding=(2, 0, 0, 2, 0, 0), count_include_pad=True), "mean")
        flat = b.emit(op.add(b.emit(op.reshape(mean, (2, 7, 5, 5)), "flat"), const(1.0)), "one")
        return [b.emit(op.divide(x, b.emit(op.power(flat, const(0.75)), "power")), "y")]

    form = integer_of(module(write, x=(2, 7, 5, 5)))
    program, _ = lower_cuda(form)
    feeds, got = feeds_of(form), np.zeros((2, 7, 5, 5), np.float32)
    Emulated(program.source, optimize=0).run(program, list(feeds.values()), [got])
    np.testing.assert_allclose(got, interpreter.run(form, feeds)["y"], rtol=1e-5)


def test_floats_are_not_read_behind_their_rows():
    """40 floats a pixel become 40 codes in rows of 48."""

    def write(b, x):
        return [conv(b, b.emit(op.permute_dims(x, [0, 3, 1, 2]), "p"), 8)]

    form = integer_of(module(write, x=(1, 3, 3, 40)))
    program, _ = lower_cuda(form)
    feeds, got = feeds_of(form), np.zeros((1, 8, 3, 3), np.float32)
    Emulated(program.source, optimize=0).run(program, list(feeds.values()), [got])
    np.testing.assert_array_equal(got, interpreter.run(form, feeds)["y"])


@pytest.mark.parametrize("window", [(7, 7), (2, 2)])
def test_few_pooled_pixels_are_made_by_many_threads(window):
    def write(b, x):
        c = conv(b, x, 20, "c")
        pooled = b.emit(op.nn.avg_pool2d(c, window, strides=window), "p")
        return [conv(b, pooled, 8, "d"), b.emit(op.mean(c, [2, 3]), "m")]

    form = integer_of(module(write, x=(1, 4, 14, 14)))
    program, notes = lower_cuda(form)
    shared = {note.op: note.note for note in notes}
    assert shared["mean"] == "32 rows x 32 threads"
    assert shared["avg_pool2d"] == ("32 rows x 8 threads" if window == (7, 7) else "")
    feeds, got = feeds_of(form), [np.zeros(shape_of(o), np.float32) for o in graph.read(form).outputs]
    Emulated(program.source, optimize=0).run(program, list(feeds.values()), got)
    for value, want in zip(got, interpreter.run(form, feeds).values(), strict=True):
        np.testing.assert_array_equal(value, want)


@pytest.mark.parametrize("integer", [True, False])
def test_growing_concatenations_begin_with_the_last_one(integer):
    """As dense blocks have them: each layer reads all that came before."""

    def write(b, x):
        parts = [x, conv(b, x, 4, "a"), conv(b, x, 4, "b", 1), conv(b, x, 4, "c", 2)]
        pairs = [b.emit(op.concat(parts[:n], axis=1), f"n{n}") for n in (2, 3, 4)]
        return [conv(b, part, 8, f"y{i}") for i, part in enumerate(pairs)]

    form = module(write, x=(1, 4, 5, 5))
    form = integer_of(form, precision="int8" if integer else "fp32")
    program, notes = lower_cuda(form)
    assert sum(note.op == "concat" for note in notes) <= (9 if integer else 6)  # codes of other scales begin anew
    feeds, got = feeds_of(form), [np.zeros((1, 8, 5, 5), np.float32) for _ in range(3)]
    Emulated(program.source, optimize=0).run(program, list(feeds.values()), got)
    for value, want in zip(got, interpreter.run(form, feeds).values(), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5)
