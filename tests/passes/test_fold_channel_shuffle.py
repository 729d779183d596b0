from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile import ops
from qcompile.passes.fold_channel_shuffle import fold_channel_shuffle
from qcompile.reference.interpreter import run
from tests.passes.float_modules import module, values
from tests.passes.quantized_modules import kinds, specs_of

op = relax.op


def shuffle(groups, axes=(0, 2, 1, 3, 4), dtype="uint8", end=(2, 12, 3, 5)):
    def write(b, x):
        codes = b.emit(op.astype(x, dtype), "codes")
        split = b.emit(op.reshape(codes, (2, groups, 12 // groups, 3, 5)), "split")
        return [b.emit(op.reshape(b.emit(op.permute_dims(split, axes), "swapped"), end), "y")]

    return module(write, x=(2, 12, 3, 5))


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_three_operators_are_one(groups):
    before = shuffle(groups)
    after = fold_channel_shuffle()(before)
    relax.analysis.well_formed(after)
    assert kinds(after) == ["astype", "CHANNEL_SHUFFLE"] and specs_of(after) == [ops.ChannelShuffle(groups)]
    feeds = {"x": np.round(values(2, 12, 3, 5, low=0, high=255))}
    np.testing.assert_array_equal(run(after, feeds)["y"], run(before, feeds)["y"])


@pytest.mark.parametrize(
    "stays", [shuffle(3, axes=(0, 1, 2, 4, 3)), shuffle(3, dtype="float32"), shuffle(3, end=(2, 4, 9, 5))]
)
def test_anything_else_stays(stays):
    assert kinds(fold_channel_shuffle()(stays)) == kinds(stays)
