from __future__ import annotations

from tvm import relax

from qcompile.passes.merge_common_subexpressions import merge_common_subexpressions
from tests.passes.float_modules import check, check_unchanged, const, module, values, weight

op = relax.op


def test_equal_operators_with_equal_constants_are_one():
    def before(b, x):
        first = b.emit(op.nn.relu(b.emit(op.nn.conv2d(x, weight(3, 3, 1, 1)), "conv1")), "relu1")
        second = b.emit(op.nn.relu(b.emit(op.nn.conv2d(x, weight(3, 3, 1, 1)), "conv2")), "relu2")
        return [b.emit(op.add(first, second), "y")]

    def after(b, x):
        first = b.emit(op.nn.relu(b.emit(op.nn.conv2d(x, weight(3, 3, 1, 1)), "conv1")), "relu1")
        return [b.emit(op.add(first, first), "y")]

    check(merge_common_subexpressions, module(before, x=(1, 3, 2, 2)), module(after, x=(1, 3, 2, 2)))


def test_an_output_gives_its_name():
    def before(b, x):
        a = b.emit(op.nn.relu(x), "a")
        return [b.emit(op.nn.relu(x), "y"), b.emit(op.sigmoid(a), "z")]

    def after(b, x):
        y = b.emit(op.nn.relu(x), "y")
        return [y, b.emit(op.sigmoid(y), "z")]

    check(merge_common_subexpressions, module(before, x=(4,)), module(after, x=(4,)))


def test_two_outputs_stay_two():
    mod = module(lambda b, x: [b.emit(op.nn.relu(x), "y"), b.emit(op.nn.relu(x), "z")], x=(4,))
    check_unchanged(merge_common_subexpressions, mod)


def test_other_attributes_constants_or_inputs_are_left():
    def write(b, x, z):
        terms = [
            op.nn.leakyrelu(x, 0.1),
            op.nn.leakyrelu(x, 0.2),
            op.nn.leakyrelu(z, 0.1),
            op.multiply(x, const(values(4))),
            op.multiply(x, const(values(4, seed=1))),
            op.clip(x, 0.0, 1.0),
            op.clip(x, 0.0, 2.0),
        ]
        return [b.emit(op.concat([b.emit(t, f"t{i}") for i, t in enumerate(terms)]), "y")]

    check_unchanged(merge_common_subexpressions, module(write, x=(4,), z=(4,)))
