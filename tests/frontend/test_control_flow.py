"""If, Loop and Scan whose course is known, against ONNX Runtime."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from qcompile.errors import QCompileError
from qcompile.frontend import import_onnx
from qcompile.graph import read
from tests.frontend.onnx_models import check, model, node, operators, weights

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def tensor(name, dtype=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def graph(nodes, inputs=(), outputs=()):
    return helper.make_graph(nodes, "body", list(inputs), list(outputs))


def loop(steps=4, last=10, size=3):
    """s = tanh(s @ w), at most ``steps`` times, until the step number is ``last``; collects s and its square."""
    nodes = [
        node("MatMul", "s w", "m"),
        node("Tanh", "m", "s_out"),
        node("Mul", "s_out s_out", "square"),
        node("Less", "i last", "more"),
        node("Identity", "s_out", "copy"),
    ]
    inputs = [tensor("i", INT, []), tensor("c", BOOL, []), tensor("s", shape=[2, size])]
    outputs = [tensor("more", BOOL, []), tensor("s_out"), tensor("copy"), tensor("square")]
    body = graph(nodes, inputs, outputs)
    proto = [node("Loop", "steps yes x", "y all squares", name="cell", body=body)]
    constants = {"steps": np.array(steps), "yes": np.array(True), "last": np.array(last), "w": weights(size, size)}
    return model(proto, {"x": (2, size)}, ["y", "all", "squares"], constants)


def test_loop_of_known_length():
    imported = check(loop())
    assert operators(imported).count("matmul") == 4


def test_loop_that_stops_at_a_known_step():
    assert operators(check(loop(steps=9, last=1))).count("matmul") == 2


def test_what_is_the_same_in_every_step_is_computed_once():
    nodes = [node("Sin", "x", "a"), node("Transpose", "w", "t"), node("MatMul", "s t", "m"), node("Add", "m a", "u")]
    inputs = [tensor("i", INT, []), tensor("c", BOOL, []), tensor("s", shape=[2, 3])]
    body = graph([*nodes, node("Identity", "c", "d")], inputs, [tensor("d", BOOL), tensor("u")])
    constants = {"n": np.array(3), "yes": np.array(True), "w": weights(3, 3)}
    imported = check(model([node("Loop", "n yes x", "y", body=body)], {"x": (2, 3)}, constants=constants))
    assert operators(imported).count("sin") == 1
    matrices = {
        v.args[1].value.numpy().ctypes.data for _, v in read(imported.module).bindings if v.op.name == "relax.matmul"
    }
    assert len(matrices) == 1


@pytest.mark.parametrize("opset", [11, 17])
def test_scan(opset):
    """Two scanned inputs, one from behind along axis 1; a result in reverse order along axis 1."""
    nodes = [node("Add", "s a", "t"), node("Mul", "t b", "u"), node("Identity", "u", "o"), node("Neg", "t", "p")]
    inputs = [tensor("s", shape=[3]), tensor("a", shape=[3]), tensor("b", shape=[3])]
    body = graph(nodes, inputs, [tensor("u", shape=[3]), tensor("o", shape=[3]), tensor("p", shape=[3])])
    scan = node(
        "Scan",
        "x a b",
        "y all negative",
        body=body,
        num_scan_inputs=2,
        scan_input_axes=[0, 1],
        scan_input_directions=[0, 1],
        scan_output_axes=[0, 1],
        scan_output_directions=[0, 1],
    )
    check(model([scan], {"x": (3,), "a": (4, 3), "b": (3, 4)}, ["y", "all", "negative"], opset=opset))


def test_branch_inside_a_loop_reads_the_step():
    then, other = (graph([node(op, "s", "r")], outputs=[tensor("r")]) for op in ("Exp", "Neg"))
    nodes = [
        node("Equal", "i zero", "first"),
        node("If", "first", "t", then_branch=then, else_branch=other),
        node("Identity", "c", "d"),
    ]
    body = graph(
        nodes, [tensor("i", INT, []), tensor("c", BOOL, []), tensor("s", shape=[2])], [tensor("d", BOOL), tensor("t")]
    )
    constants = {"n": np.array(3), "yes": np.array(True), "zero": np.array(0)}
    imported = check(model([node("Loop", "n yes x", "y", body=body)], {"x": (2,)}, constants=constants))
    assert operators(imported) == ["exp", "negative", "negative"]


def test_what_only_a_branch_reads_is_kept():
    then, other = (graph([node(op, "r", "t")], outputs=[tensor("t")]) for op in ("Sqrt", "Neg"))
    nodes = [node("Abs", "x", "r"), node("If", "yes", "y", then_branch=then, else_branch=other)]
    check(model(nodes, {"x": (2,)}, constants={"yes": np.array(True)}))


def either(then, other, shape=(3,)):
    """An If on data; both branches call their tensors alike."""
    branches = (
        graph([node(*then), node("Abs", "t", "r")], outputs=[tensor("r")]),
        graph([node(*other)], outputs=[tensor("r")]),
    )
    choose = node("If", "c", name="choose", then_branch=branches[0], else_branch=branches[1])
    return model([choose], {"x": shape, "c": ()}, dtypes={"c": np.bool_})


@pytest.mark.parametrize("condition", [True, False])
def test_both_branches_are_computed_where_the_data_decides(condition):
    feeds = {"x": weights(3), "c": np.array(condition)}
    imported = check(either(("Exp", "x", "t"), ("Neg", "x", "r")), feeds)
    assert operators(imported) == ["exp", "abs", "negative", "where"]
    assert imported.notes == ("both branches of choose are computed, as the data decides (c)",)


def message(proto):
    with pytest.raises(QCompileError) as caught:
        import_onnx(proto)
    return str(caught.value)


def test_what_the_data_decides_is_refused():
    proto = loop()
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "last"))
    proto.graph.input.append(tensor("last", INT, []))
    assert message(proto) == (
        "cell (Loop): whether it goes on is computed from the data; "
        "export the model without control flow, or make what decides about it a constant"
    )


def test_branches_of_different_shapes_are_refused():
    assert message(either(("Exp", "x", "t"), ("ReduceSum", "x", "r"))) == (
        "choose (If): its condition (c) is computed from the data, and decides about the shape of y; "
        "export the model without control flow, or make what decides about it a constant"
    )


def test_a_branch_that_is_impossible_is_named():
    assert message(either(("Exp", "x", "t"), ("NonZero", "x", "r"))) == (
        "choose (If): its condition (c) is computed from the data, and its else_branch cannot be imported "
        "(r (NonZero): the shape of its result depends on the data); "
        "export the model without control flow, or make what decides about it a constant"
    )


def test_too_many_steps_are_refused():
    assert message(loop(steps=1001, last=5000)).startswith(
        "cell (Loop): its 1001 steps of 5 operators are too many to write out; give a shorter input"
    )
