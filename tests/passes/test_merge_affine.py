from __future__ import annotations

from tvm import relax

from qcompile.passes.merge_affine import merge_affine
from tests.passes.float_modules import (
    check_same_results,
    check_unchanged,
    const,
    module,
    names,
    operators,
    values,
    weight,
)

op = relax.op


def channelwise(seed: int):
    return const(values(1, 3, 1, 1, seed=seed))


def test_a_batch_norm_with_a_scale_and_shift_behind_it():
    def write(b, x):
        y = b.emit(op.multiply(x, channelwise(1)), "a")
        y = b.emit(op.add(y, channelwise(2)), "b")
        y = b.emit(op.multiply(y, channelwise(3)), "c")
        return [b.emit(op.add(y, channelwise(4)), "y")]

    mod = module(write, x=(2, 3, 4, 4))
    result = merge_affine(mod)
    assert operators(result) == ["multiply", "add"] and names(result) == ["c~multiply", "y"]
    check_same_results(mod, result)


def test_scales_and_shifts_of_one_kind():
    def write(b, x):
        y = b.emit(op.multiply(b.emit(op.multiply(x, const(3.0)), "a"), channelwise(1)), "y")
        z = b.emit(op.add(b.emit(op.add(x, const(3.0)), "b"), channelwise(1)), "z")
        return [y, z]

    mod = module(write, x=(2, 3, 4, 4))
    result = merge_affine(mod)
    assert operators(result) == ["multiply", "add"] and names(result) == ["y", "z"]
    check_same_results(mod, result)


def test_an_inner_result_with_another_use_is_left():
    def write(b, x):
        inner = b.emit(op.add(x, const(3.0)), "a")
        return [b.emit(op.multiply(inner, channelwise(1)), "y"), inner]

    check_unchanged(merge_affine, module(write, x=(2, 3, 4, 4)))


def test_the_bias_of_a_layer_stays_with_it():
    def write(b, x):
        conv = b.emit(op.nn.conv2d(x, weight(3, 3, 1, 1)), "conv")
        biased = b.emit(op.add(conv, channelwise(1)), "biased")
        return [b.emit(op.multiply(biased, const(2.0)), "y"), conv]

    check_unchanged(merge_affine, module(write, x=(2, 3, 4, 4)))


def test_constants_do_not_grow():
    def write(b, x):
        inner = b.emit(op.multiply(x, channelwise(1)), "a")
        return [b.emit(op.multiply(inner, const(values(1, 1, 4, 4))), "y")]

    check_unchanged(merge_affine, module(write, x=(2, 3, 4, 4)))
