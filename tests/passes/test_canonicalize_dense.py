from __future__ import annotations

from tvm import relax

from qcompile.passes.canonicalize_dense import canonicalize_dense
from tests.passes.float_modules import (
    check,
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


def test_a_weight_with_leading_ones_is_a_matrix():
    w = values(1, 4, 5)

    def write(w):
        return lambda b, x: [b.emit(op.matmul(x, const(w)), "y")]

    check(canonicalize_dense, module(write(w), x=(2, 3, 4)), module(write(w[0]), x=(2, 3, 4)))


def test_unless_it_adds_axes_to_the_result():
    check_unchanged(canonicalize_dense, module(lambda b, x: [b.emit(op.matmul(x, weight(1, 4, 5)), "y")], x=(3, 4)))


def test_a_batch_of_weights_is_left():
    mod = module(lambda b, x: [b.emit(op.matmul(x, weight(2, 4, 5)), "y")], x=(2, 3, 4))
    check_unchanged(canonicalize_dense, mod)


def flattened(b, x, axes, rows, outputs=()):
    t = b.emit(op.permute_dims(x, axes), "t")
    flat = b.emit(op.reshape(t, (x.ty.shape[0], rows)), "flat")
    return [b.emit(op.matmul(flat, weight(rows, 7)), "y"), *(t for _ in outputs)]


def test_rows_are_ordered_as_the_image_is():
    for axes in ((0, 2, 3, 1), (0, 3, 2, 1)):
        mod = module(lambda b, x, axes=axes: flattened(b, x, axes, 60), x=(2, 3, 4, 5))
        result = canonicalize_dense(mod)
        assert operators(result) == ["reshape", "matmul"] and names(result) == ["y~reshape", "y"]
        check_same_results(mod, result)


def refused(caplog, reason, mod):
    with caplog.at_level("DEBUG", "qcompile.passes"):
        check_unchanged(canonicalize_dense, mod)
    assert f"y: {reason}" in caplog.text


def test_a_transposed_image_with_another_use_is_left(caplog):
    mod = module(lambda b, x: flattened(b, x, (0, 2, 3, 1), 60, [1]), x=(2, 3, 4, 5))
    refused(caplog, "the transposed tensor has another use", mod)


def test_a_batch_that_moves_is_left(caplog):
    def write(b, x):
        t = b.emit(op.permute_dims(x, (1, 0, 2)), "t")
        return [b.emit(op.matmul(b.emit(op.reshape(t, (3, 8)), "flat"), weight(8, 7)), "y")]

    refused(caplog, "the transpose is not within what is flattened to rows", module(write, x=(2, 3, 4)))
