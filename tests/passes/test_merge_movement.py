from __future__ import annotations

import pytest
from tvm import relax

from qcompile.passes.merge_movement import merge_movement
from tests.passes.float_modules import check, check_unchanged, module

op = relax.op


def chain(*steps):
    def write(b, x):
        for i, step in enumerate(steps):
            x = b.emit(step(x), "y" if i == len(steps) - 1 else f"s{i}")
        return [x]

    return module(write, x=(1, 6, 3, 4))


def reshape(*shape):
    return lambda x: op.reshape(x, shape)


def permute(*axes):
    return lambda x: op.permute_dims(x, axes)


def cut(axis, begin, end, stride=1):
    return lambda x: op.strided_slice(x, [axis], [begin], [end], [stride])


def halves_of_a_shuffle(i):
    return [reshape(3, 2, 12), permute(1, 0, 2), reshape(2, 1, 3, 3, 4), cut(0, i, i + 1), reshape(1, 3, 3, 4)]


MERGED = {
    "first half": (halves_of_a_shuffle(0), [cut(1, 0, 5, 2)]),
    "second half": (halves_of_a_shuffle(1), [cut(1, 1, 6, 2)]),
    "a slice of a slice": ([cut(1, 1, 6, 2), cut(1, 1, 3)], [cut(1, 3, 6, 2)]),
    "one channel": ([reshape(6, 12), cut(0, 4, 5), reshape(1, 1, 3, 4)], [cut(1, 4, 5)]),
    "a slice between transposes": ([permute(0, 2, 3, 1), cut(2, 1, 3), permute(0, 3, 1, 2)], [cut(3, 1, 3)]),
    "the tail alone": (
        [permute(0, 1, 3, 2), permute(0, 2, 1, 3), cut(1, 0, 2), permute(0, 2, 1, 3)],
        [permute(0, 1, 3, 2), cut(2, 0, 2)],
    ),
}


@pytest.mark.parametrize("name", MERGED)
def test_merged(name):
    before, after = MERGED[name]
    check(merge_movement, chain(*before), chain(*after))


LEFT = {
    "a whole shuffle": [reshape(1, 2, 3, 3, 4), permute(0, 2, 1, 3, 4), reshape(1, 6, 3, 4)],
    "one slice": [cut(1, 1, 3)],
    "a slice that is transposed": [cut(1, 0, 3), permute(0, 3, 2, 1)],
    "slices of two axes": [cut(1, 1, 3), cut(2, 0, 2)],
    "a slice backwards": [reshape(6, 12), cut(0, 4, 1, -1), reshape(1, 3, 3, 4)],
}


@pytest.mark.parametrize("name", LEFT)
def test_left(name):
    check_unchanged(merge_movement, chain(*LEFT[name]))
