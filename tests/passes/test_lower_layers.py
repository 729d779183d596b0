"""What lowering calls, and moves, on the smallest graphs: the list of kernels, and the constants they get."""

from __future__ import annotations

import json

import numpy as np
from tvm import relax, tirx
from tvm.ir import GenericConst

from qcompile import graph
from qcompile.compile import runnable
from qcompile.passes.base import op_name
from qcompile.passes.lower_layers import ATTR_KERNELS, LowerLayers, same_memory
from qcompile.reference import interpreter
from qcompile.targets.storage import Storage
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import feeds_of, integer_of
from tests.targets.running import AVX2

op = relax.op


def conv(b, x, outputs, name="y", seed=0, **options):
    weights = weight(outputs, int(x.ty.shape[1]), 3, 3, seed=seed)
    return b.emit(op.nn.conv2d(x, weights, padding=(1, 1), **options), name)


def lowered(write, **inputs):
    return LowerLayers(AVX2)(integer_of(module(write, **inputs)))


def notes(mod) -> list[dict]:
    return json.loads(str(mod[graph.MAIN].attrs[ATTR_KERNELS]))


def kernels(mod) -> list[str]:
    return [note["op"] for note in notes(mod)]


def operators(mod) -> list[str]:
    """What is left of Relax: everything but kernel calls and changes of a buffer's shape."""
    names = [op_name(value) for _, value in graph.read(mod).bindings]
    return [name for name in names if name not in ("call_tir", "reshape", "memory.view", "")]


def chain(b, x):
    return [conv(b, conv(b, x, 16, "c"), 16, "y", seed=1)]


def test_a_chain_of_images_changes_its_layout_at_the_ends_only():
    """The input is quantized into blocks; the last layer makes floats, which go out as the caller wants them."""
    mod = lowered(chain, x=(1, 16, 8, 8))
    assert kernels(mod) == ["quantize", "conv2d", "conv2d", "relayout"]
    assert operators(mod) == []
    relax.analysis.well_formed(mod)


def test_a_matrix_after_an_image_is_moved_once():
    def write(b, x):
        flat = b.emit(op.reshape(conv(b, x, 16, "c"), (1, 256)), "flat")
        return [b.emit(op.matmul(flat, weight(256, 5)), "y")]

    mod = lowered(write, x=(1, 16, 4, 4))
    assert kernels(mod)[:4] == ["quantize", "conv2d", "relayout", "dense"]


def test_one_pixel_of_whole_blocks_lies_as_a_vector_does():
    """A pooled image needs no move to become the row of a matrix."""

    def write(b, x):
        m = b.emit(op.mean(conv(b, x, 32, "c"), [2, 3], keepdims=True), "m")
        flat = b.emit(op.reshape(m, (1, 32)), "flat")
        return [b.emit(op.matmul(flat, weight(32, 5)), "y")]

    assert kernels(lowered(write, x=(1, 16, 4, 4)))[:4] == ["quantize", "conv2d", "mean", "dense"]


def test_equal_kernels_are_shared():
    """Three convolutions of one shape and other weights: one function. Names of layers stay apart."""

    def write(b, x):
        first = conv(b, x, 16, "a")
        return [conv(b, conv(b, first, 16, "b", seed=1), 16, "c", seed=2)]

    mod = lowered(write, x=(1, 16, 8, 8))
    convolutions = [note for note in notes(mod) if note["op"] == "conv2d"]
    functions = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)]
    assert len(convolutions) == 3 and len({note["layer"] for note in convolutions}) == 3
    assert len(functions) == len({note["kernel"] for note in notes(mod)}) < len(notes(mod))


def test_an_island_stays_a_relax_operator_on_plain_tensors():
    def write(b, x):
        c = conv(b, x, 16, "c")
        return [b.emit(op.cumsum(c, 1), "y")]

    mod = lowered(write, x=(1, 16, 4, 4))
    assert operators(mod) == ["cumsum"]
    (island,) = [value for _, value in graph.read(mod).bindings if op_name(value) == "cumsum"]
    assert tuple(map(int, island.args[0].ty.shape)) == (1, 16, 4, 4)


def test_a_tensor_is_moved_once_for_all_of_its_readers():
    def write(b, x):
        c = conv(b, x, 16, "c")
        return [b.emit(op.cumsum(c, 1), "y"), b.emit(op.cumsum(c, 2), "z"), b.emit(op.cumsum(c, 3), "w")]

    made = kernels(lowered(write, x=(1, 16, 4, 4)))
    assert made.count("dequantize") <= 1 and made.count("relayout") <= 1


def test_constants_are_packed_and_bias_takes_the_zero_point():
    mod = lowered(chain, x=(1, 16, 8, 8))
    for _, value in graph.read(mod).bindings:
        if op_name(value) == "call_tir" and value.args[0].name_hint.startswith("conv2d"):
            constants = [a.value.numpy() for a in value.args[1].fields if isinstance(a, GenericConst)]
            assert [(c.dtype, c.shape) for c in constants] == [
                (np.int8, (16 * 16 * 9,)),
                (np.int32, (16,)),
                (np.float32, (16,)),
            ]


def test_a_transposed_convolution_is_spread_and_convolved():
    def write(b, x):
        return [b.emit(op.nn.conv2d_transpose(x, weight(16, 8, 3, 3), strides=(2, 2)), "y")]

    assert kernels(lowered(write, x=(1, 16, 4, 4)))[:3] == ["quantize", "dilate", "conv_transpose2d"]


def test_the_module_means_the_same_afterwards():
    def write(b, x):
        c = conv(b, x, 20, "c")
        parts = b.emit(op.split(c, 2, 1), "parts")
        first, second = (b.emit(relax.TupleGetItem(parts, i), f"p{i}") for i in range(2))
        both = b.emit(op.concat([second, first, x], 1), "both")
        return [conv(b, both, 8), b.emit(op.cumsum(c, 1), "z"), c]

    before = integer_of(module(write, x=(2, 6, 5, 5)))
    feeds = feeds_of(before)
    want, got = interpreter.run(before, feeds), runnable(before, AVX2)(feeds)
    for name in ("y", "c.dq"):
        np.testing.assert_array_equal(got[name], want[name])
    np.testing.assert_allclose(got["z"], want["z"], rtol=1e-5, atol=1e-5)


def test_which_buffers_are_the_same_memory():
    plain, row = Storage((1, 32, 1, 1), "uint8"), Storage((1, 32), "uint8")
    assert same_memory(plain, row)
    assert same_memory(Storage((1, 32, 1, 1), "uint8", 16), row)
    assert same_memory(Storage((1, 20, 1, 1), "uint8", 16), Storage((1, 20), "uint8"))  # with padding behind it
    assert not same_memory(Storage((1, 20), "uint8"), Storage((1, 20, 1, 1), "uint8", 16))  # nothing to pad with
    assert not same_memory(Storage((2, 20, 1, 1), "uint8", 16), Storage((2, 20), "uint8"))
    assert same_memory(Storage((1, 32, 1, 1), "uint8", 16, (0, 0, 0, 1)), row) is False
    assert not same_memory(Storage((1, 32, 2, 1), "uint8", 16), Storage((1, 64), "uint8"))
    assert same_memory(Storage((1, 1, 3, 4), "uint8", 1), Storage((12,), "uint8"))
    assert not same_memory(Storage((4,), "uint8"), Storage((4,), "int8"))
