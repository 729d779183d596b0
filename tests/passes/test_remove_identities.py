from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile.passes.remove_identities import remove_identities
from tests.passes.float_modules import check, check_unchanged, const, module

op = relax.op
SHAPE = (2, 3, 4)

IDENTITIES = {
    "another name": lambda b, x: x,
    "reshape": lambda b, x: op.reshape(x, SHAPE),
    "broadcast": lambda b, x: op.broadcast_to(x, SHAPE),
    "permute_dims": lambda b, x: op.permute_dims(x, (0, 1, 2)),
    "slice": lambda b, x: op.strided_slice(x, [1], [0], [3], [1]),
    "concat of one": lambda b, x: op.concat([x], 1),
    "split in one": lambda b, x: op.split(x, 1, 0),
    "an element of a tuple": lambda b, x: relax.TupleGetItem(b.emit(relax.Tuple([const(1.0), x]), "pair"), 1),
    "dropout": lambda b, x: relax.TupleGetItem(b.emit(op.nn.dropout(x, 0.5), "d"), 0),
    "pad": lambda b, x: op.nn.pad(x, [0] * 6),
    "astype": lambda b, x: op.astype(x, "float32"),
    "add 0": lambda b, x: op.add(x, const(0.0)),
    "multiply by 1": lambda b, x: op.multiply(x, const(np.ones((3, 1)))),
    "divide by 1": lambda b, x: op.divide(x, const(1.0)),
}


def bare(b, x):
    return [b.emit(op.sigmoid(b.emit(op.nn.relu(x), "r")), "y")]


@pytest.mark.parametrize("name", IDENTITIES)
def test_in_the_middle(name):
    def before(b, x):
        return [b.emit(op.sigmoid(b.emit(IDENTITIES[name](b, b.emit(op.nn.relu(x), "r")), "i")), "y")]

    check(remove_identities, module(before, x=SHAPE), module(bare, x=SHAPE))


def test_an_output_gives_its_name_to_what_it_is():
    def before(b, x):
        r = b.emit(op.nn.relu(x), "r")
        return [b.emit(op.reshape(r, SHAPE), "y"), b.emit(op.sigmoid(r), "z")]

    def after(b, x):
        r = b.emit(op.nn.relu(x), "y")
        return [r, b.emit(op.sigmoid(r), "z")]

    check(remove_identities, module(before, x=SHAPE), module(after, x=SHAPE))


def test_an_output_that_is_an_input_or_another_output_stays():
    def write(b, x):
        y = b.emit(op.nn.relu(x), "y")
        return [y, b.emit(op.reshape(y, SHAPE), "z"), b.emit(op.reshape(x, SHAPE), "w")]

    check_unchanged(remove_identities, module(write, x=SHAPE))


def test_two_outputs_that_are_one_tensor_stay_two():
    def before(b, x):
        r = b.emit(op.nn.relu(x), "r")
        return [b.emit(op.reshape(r, SHAPE), "y"), b.emit(op.permute_dims(r, (0, 1, 2)), "z")]

    def after(b, x):
        y = b.emit(op.nn.relu(x), "y")
        return [y, b.emit(op.permute_dims(y, (0, 1, 2)), "z")]

    check(remove_identities, module(before, x=SHAPE), module(after, x=SHAPE))


LEFT = {
    "slice backwards": lambda x: op.strided_slice(x, [1], [2], [-4], [-1]),
    "half of it": lambda x: op.strided_slice(x, [1], [0], [2], [1]),
    "transpose": lambda x: op.permute_dims(x, (1, 0, 2)),
    "add 0 to more axes": lambda x: op.add(x, const(np.zeros((1, 1, 1, 1)))),
    "add a little": lambda x: op.add(x, const([0.0, 0.0, 0.0, 1e-6])),
    "flip": lambda x: op.flip(x, 1),
}


@pytest.mark.parametrize("name", LEFT)
def test_left(name):
    check_unchanged(remove_identities, module(lambda b, x: [b.emit(LEFT[name](x), "y")], x=SHAPE))
