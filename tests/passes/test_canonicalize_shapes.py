from __future__ import annotations

import pytest
from tvm import relax

from qcompile.passes.canonicalize_shapes import canonicalize_shapes
from tests.passes.float_modules import check, check_unchanged, module

op = relax.op
SHAPE = (2, 1, 3, 4)


def chain(*steps):
    def write(b, x):
        for i, step in enumerate(steps):
            x = b.emit(step(x), "y" if i == len(steps) - 1 else f"s{i}")
        return [x]

    return module(write, x=SHAPE)


CASES = {
    "flatten": ([op.flatten], [lambda x: op.reshape(x, (24,))]),
    "squeeze": ([lambda x: op.squeeze(x, [1])], [lambda x: op.reshape(x, (2, 3, 4))]),
    "expand_dims": ([lambda x: op.expand_dims(x, [0])], [lambda x: op.reshape(x, (1, *SHAPE))]),
    "three reshapes": (
        [lambda x: op.reshape(x, (6, 4)), lambda x: op.expand_dims(x, [1]), lambda x: op.reshape(x, (3, 8))],
        [lambda x: op.reshape(x, (3, 8))],
    ),
    "two transposes": (
        [lambda x: op.permute_dims(x, (0, 1, 3, 2)), lambda x: op.permute_dims(x, (1, 2, 0, 3))],
        [lambda x: op.permute_dims(x, (1, 3, 0, 2))],
    ),
    "a transpose of ones": ([lambda x: op.permute_dims(x, (1, 0, 2, 3))], [lambda x: op.reshape(x, (1, 2, 3, 4))]),
    "transposes without axes": ([op.permute_dims, op.permute_dims], [lambda x: op.reshape(x, SHAPE)]),
}


@pytest.mark.parametrize("name", CASES)
def test_spelling(name):
    before, after = CASES[name]
    check(canonicalize_shapes, chain(*before), chain(*after))


def test_a_transpose_that_moves_elements_is_left():
    check_unchanged(canonicalize_shapes, chain(lambda x: op.permute_dims(x, (0, 1, 3, 2))))


def test_the_inner_reshape_stays_for_its_other_reader():
    def before(b, x):
        s = b.emit(op.reshape(x, (6, 4)), "s")
        return [b.emit(op.reshape(s, (24,)), "y"), s]

    def after(b, x):
        s = b.emit(op.reshape(x, (6, 4)), "s")
        return [b.emit(op.reshape(x, (24,)), "y"), s]

    check(canonicalize_shapes, module(before, x=SHAPE), module(after, x=SHAPE))
