"""What import_onnx promises about names, outputs, shared constants and control flow."""

import numpy as np
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from qcompile.frontend import import_onnx
from qcompile.graph import read
from qcompile.model import Layer, TensorSpec
from tests.frontend.onnx_models import check, model, names, node, operators, weights


def test_names_stay_verbatim():
    nodes = [
        node("Conv", "gpu_0/data:0 w b", "stage 1/conv:0", name="stage 1/Conv"),
        node("Relu", "stage 1/conv:0".replace(" ", "\N{NO-BREAK SPACE}"), "r.1"),
    ]
    nodes = [
        helper.make_node("Conv", ["gpu_0/data:0", "w", "b"], ["stage 1/conv:0"], name="stage 1/Conv"),
        helper.make_node("Relu", ["stage 1/conv:0"], ["r.1"]),
    ]
    proto = model(nodes, {"gpu_0/data:0": (1, 2, 4, 4)}, ["r.1"], {"w": weights(3, 2, 1, 1), "b": weights(3)})
    imported = check(proto)
    assert names(imported) == ["stage 1/conv:0~conv2d", "stage 1/conv:0", "r.1"]
    assert imported.inputs == (TensorSpec("gpu_0/data:0", (1, 2, 4, 4), "float32"),)
    assert imported.outputs == (TensorSpec("r.1", (1, 3, 4, 4), "float32"),)
    conv = Layer("stage 1/Conv", "Conv")
    assert imported.layers == {"stage 1/conv:0~conv2d": conv, "stage 1/conv:0": conv, "r.1": Layer("r.1", "Relu")}


def test_steps_of_a_node_never_take_a_tensor_name():
    nodes = [node("Relu", "x", "y~add"), node("HardSwish", "y~add", "y")]
    imported = check(model(nodes, {"x": (3,)}))
    assert names(imported) == ["y~add", "y~add_2", "y~clip", "y~multiply", "y"]
    assert len(set(names(imported))) == 5


def test_order_of_outputs_and_inputs():
    nodes = [node("Relu", "b", "r"), node("Neg", "a", "n"), node("Add", "a b", "s")]
    imported = check(model(nodes, {"b": (2,), "unused": (5, 1), "a": (2,)}, ["s", "r", "n"]))
    assert [i.name for i in imported.inputs] == ["b", "unused", "a"]
    assert [o.name for o in imported.outputs] == ["s", "r", "n"]


def test_outputs_that_are_inputs_constants_or_doubled():
    nodes = [node("Identity", "x", "copy"), node("Relu", "x", "r"), node("Identity", "r", "r2"), node("Neg", "r", "n")]
    imported = check(model(nodes, {"x": (2,)}, ["x", "copy", "c", "r", "r2", "n"], {"c": weights(3)}))
    assert operators(imported) == ["relu", "negative"]


def test_a_copied_result_takes_the_name_of_the_output():
    imported = check(model([node("Relu", "x", "t45"), node("Identity", "t45", "output")], {"x": (2,)}, ["output"]))
    assert names(imported) == ["output"]


def test_shared_constants_are_one_object():
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a w", "y")]
    imported = check(model(nodes, {"x": (2, 3)}, constants={"w": weights(3, 3)}))
    first, second = (value.args[1] for _, value in read(imported.module).bindings)
    assert first.same_as(second)


def test_initializers_listed_as_inputs_are_constants():
    proto = model([node("Add", "x w")], {"x": (2,), "w": (2,)}, constants={"w": weights(2)})
    imported = check(proto, {"x": weights(2)})
    assert [i.name for i in imported.inputs] == ["x"]


def test_dead_nodes_do_not_matter():
    nodes = [node("NonZero", "x", "dead"), node("Relu", "x")]
    assert operators(check(model(nodes, {"x": (2,)}))) == ["relu"]


def test_constants_of_every_kind():
    tensor = numpy_helper.from_array(weights(2))
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", TensorProto.FLOAT, [1], [5.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [1]),
        [2],
    )
    nodes = [
        node("Constant", "", "a", value=tensor),
        node("Constant", "", "b", value_float=2.0),
        node("Constant", "", "c", value_floats=[1.0, 2.0]),
        node("Constant", "", "d", sparse_value=sparse),
        node("Sum", "x a b c d"),
    ]
    imported = import_onnx(model(nodes, {"x": (2,)}))
    assert operators(imported) == ["add"] * 4


def test_nothing_but_constants():
    imported = check(model([node("Add", "a b")], {}, constants={"a": weights(2), "b": weights(2, seed=1)}), {})
    assert operators(imported) == []


def test_if_with_a_constant_condition_is_inlined():
    def branch(op):
        out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        return helper.make_graph([node(op, "x", "inner")], op, [], [out])

    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Greater", "n zero", "many"),
        node("If", "many", "c", then_branch=branch("Relu"), else_branch=branch("Neg")),
        node("Abs", "c"),
    ]
    imported = check(model(nodes, {"x": (2,)}, constants={"zero": np.int64(0)}))
    assert operators(imported) == ["relu", "abs"]


def test_a_branch_reads_what_an_output_is_a_copy_of():
    def branch(op):
        out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        return helper.make_graph([node(op, "r", "inner")], op, [], [out])

    nodes = [
        node("Relu", "x", "r"),
        node("Identity", "r", "y"),
        node("If", "yes", "z", then_branch=branch("Sqrt"), else_branch=branch("Neg")),
    ]
    check(model(nodes, {"x": (2,)}, ["y", "z"], constants={"yes": np.array(True)}))


def test_functions_of_the_model_are_inlined():
    opsets = [helper.make_opsetid("", 17)]
    twice = helper.make_function("own", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], opsets)
    call = helper.make_node("Twice", ["x"], ["d"], domain="own")
    proto = model([call, node("Relu", "d")], {"x": (3,)}, domains=["own"])
    proto.functions.append(twice)
    assert operators(check(proto)) == ["add", "relu"]


def test_batch_above_one():
    nodes = [
        node("Conv", "x w", "c"),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f v"),
    ]
    constants = {"w": weights(5, 3, 3, 3), "v": weights(5, 7)}
    imported = check(model(nodes, {"x": ("N", 3, 6, 6)}, constants=constants), input_shapes={"x": (4, 3, 6, 6)})
    assert imported.outputs[0].shape == (4, 7) and imported.notes == ()


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.int64, np.uint8])
def test_other_dtypes(dtype):
    proto = model([node("Add", "x x", "y")], {"x": (3,)}, dtypes={"x": dtype, "y": dtype})
    check(proto, {"x": np.array([1, 2, 3], dtype)})


def test_main_is_well_formed_and_flat():
    imported = import_onnx(model([node("Mish", "x", "m"), node("Softplus", "m")], {"x": (3,)}, opset=18))
    relax.analysis.well_formed(imported.module)
    assert len(imported.module["main"].body.blocks) == 1
    for _, value in read(imported.module).bindings:
        assert all(isinstance(arg, relax.Var | tvm.ir.GenericConst) for arg in value.args)


def test_results_of_many_steps_bear_the_name_of_the_output():
    scales = {"s": np.float32([1, 1, 1.5, 1])}
    nodes = [node("Resize", "x _ s", "r"), node("FastGelu", "r", "g", domain="com.microsoft"), node("Relu", "g")]
    imported = check(model(nodes, {"x": (1, 2, 4, 4)}, constants=scales, domains=["com.microsoft"]))
    assert names(imported)[0] == "r" and names(imported)[-2:] == ["g", "y"]
    assert set(imported.layers) == set(names(imported))
