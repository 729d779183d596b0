from __future__ import annotations

from tvm import relax

from qcompile import graph
from qcompile.passes.base import Draft, local_pass, op_name, sweep
from tests.passes.float_modules import check_unchanged, const, module, names, operators

op = relax.op


def two_relus(b, x):
    return [b.emit(op.nn.relu(b.emit(op.nn.relu(x), "a/b:0")), "y")]


def test_names_stay_verbatim_and_the_last_step_has_the_name_of_what_it_replaces():
    def rewrite(draft, value, name):
        negated = draft.emit(op.negative(value.args[0]), draft.step(name, "negative"))
        return op.nn.leakyrelu(negated, 0.5)

    result = sweep(module(two_relus, x=(3,)), rewrite)
    assert operators(result) == ["negative", "leakyrelu"] * 2
    assert names(result) == ["a/b:0~negative", "a/b:0", "y~negative", "y"]


def test_a_module_that_is_not_changed_is_the_same_object():
    check_unchanged(local_pass("Nothing")(lambda draft, value, name: None), module(two_relus, x=(3,)))


def test_the_name_of_a_step_is_new():
    def write(b, x):
        return [b.emit(op.nn.relu(b.emit(op.nn.relu(x), "y~relu")), "y")]

    draft = Draft(graph.read(module(write, x=(3,))))
    assert [draft.step("y", "relu") for _ in range(2)] == ["y~relu_2", "y~relu_3"]


def test_uses_count_outputs_and_follow_replacements():
    seen = {}

    def rewrite(draft, value, name):
        if op_name(value) == "nn.relu":
            return value.args[0]
        seen[name] = draft.uses(value.args[0])
        return None

    def write(b, x):
        s = b.emit(op.sigmoid(x), "s")
        r = b.emit(op.nn.relu(s), "r")
        return [b.emit(op.tanh(r), "t"), b.emit(op.add(r, const(1.0)), "u"), s]

    result = sweep(module(write, x=(3,)), rewrite)
    assert operators(result) == ["sigmoid", "tanh", "add"]
    assert seen["t"] == seen["u"] == 4  # of s: relu, tanh, add, output


def test_an_output_cannot_become_an_input_or_another_output():
    def rewrite(draft, value, name):
        return value.args[0]

    result = sweep(module(two_relus, x=(3,)), rewrite)
    assert operators(result) == ["relu"] and names(result) == ["y"]
