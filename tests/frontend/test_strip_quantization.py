"""Corners of quantized graphs, each on the smallest that shows it."""

import ml_dtypes
import numpy as np
import pytest

from qcompile.errors import QCompileError
from qcompile.frontend import import_onnx
from qcompile.plan import TensorPlan
from tests.frontend.onnx_models import check, model, names, node, operators, run, run_onnxruntime, weights

F32, U8, I8 = np.float32, np.uint8, np.int8
S = {"s": F32(0.1), "z": U8(128), "z0": U8(0), "t": F32(0.2), "zi": I8(-3)}
WHY = "scale of the imported model"


def entry(scale, zero, dtype, axis=None):
    scale, zero = np.atleast_1d(scale), np.atleast_1d(zero)
    return TensorPlan(tuple(float(s) for s in scale), tuple(int(z) for z in zero), dtype, axis, "imported", "", WHY)


def q(x, y, scale="s", zero="z", **attributes):
    return node("QuantizeLinear", f"{x} {scale} {zero}", y, **attributes)


def dq(x, y, scale="s", zero="z", **attributes):
    return node("DequantizeLinear", f"{x} {scale} {zero}", y, **attributes)


def test_pairs_vanish_into_the_plan():
    nodes = [q("x", "xq"), dq("xq", "xr"), node("Tanh", "xr", "h"), q("h", "hq", "t", "zi"), dq("hq", "y", "t", "zi")]
    imported = import_onnx(model(nodes, {"x": (3,)}, constants=S))
    assert names(imported) == ["y"] and operators(imported) == ["tanh"]
    assert dict(imported.imported_plan.tensors) == {
        "x": entry(F32(0.1), 128, "uint8"),
        "y": entry(F32(0.2), -3, "int8"),
    }


def test_float_models_have_no_plan():
    assert import_onnx(model([node("Tanh", "x")], {"x": (3,)})).imported_plan is None


@pytest.mark.parametrize("zero, clipped", [("z", False), ("z0", True)])
def test_dropped_relu_comes_back(zero, clipped):
    nodes = [node("MatMul", "x w", "h"), q("h", "hq", zero=zero), dq("hq", "y", zero=zero)]
    imported = import_onnx(model(nodes, {"x": (2, 3)}, constants=S | {"w": weights(3, 4)}))
    assert operators(imported) == ["matmul"] + ["clip"] * clipped
    assert names(imported) == ["h~linear"] * clipped + ["y"]


def test_relu_that_is_there_needs_no_clip():
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), q("r", "rq", zero="z0"), dq("rq", "y", zero="z0")]
    imported = import_onnx(model(nodes, {"x": (2, 3)}, constants=S | {"w": weights(3, 4)}))
    assert operators(imported) == ["matmul", "relu"]


def test_unclipped_readers_keep_a_result_unclipped():
    nodes = [node("MatMul", "x w", "h"), q("h", "hq", zero="z0"), dq("hq", "y", zero="z0"), node("Tanh", "h", "float")]
    imported = import_onnx(model(nodes, {"x": (2, 3)}, ["y", "float"], S | {"w": weights(3, 4)}))
    assert "clip" not in operators(imported)


def test_integer_inputs_and_outputs_are_float_in_the_graph_and_integer_by_the_plan():
    nodes = [dq("x", "xr"), node("Tanh", "xr", "h"), q("h", "y", "t", "zi")]
    imported = import_onnx(model(nodes, {"x": (3,)}, constants=S, dtypes={"x": U8, "y": I8}))
    assert imported.inputs[0].dtype == imported.outputs[0].dtype == "float32"
    plan = imported.imported_plan
    assert (plan.integer_inputs, plan.integer_outputs) == (("x",), ("y",))
    assert dict(plan.tensors) == {"x": entry(F32(0.1), 128, "uint8"), "y": entry(F32(0.2), -3, "int8")}
    assert names(imported) == ["y"]


def test_codes_that_are_only_moved():
    nodes = [
        q("x", "xq"),
        node("Transpose", "xq", "tq", perm=[1, 0]),
        node("Split", "tq", "a b", axis=0),
        node("Concat", "a b", "cq", axis=1),
        dq("cq", "y"),
    ]
    imported = import_onnx(model(nodes, {"x": (3, 4)}, constants=S))
    assert operators(imported) == ["permute_dims", "split", "TupleGetItem", "TupleGetItem", "concat"]
    assert set(imported.imported_plan.tensors) == {"x", "tq", "a", "b", "y"}


def test_float_operators_behind_quantized_ones():
    sigmoid = node("QLinearSigmoid", "xq s z t z0", "cq", domain="com.microsoft")
    nodes = [q("x", "xq"), sigmoid, dq("cq", "c", "t", "z0"), node("Tanh", "c", "y")]
    imported = import_onnx(model(nodes, {"x": (3,)}, constants=S, domains=["com.microsoft"]))
    assert operators(imported) == ["sigmoid", "tanh"] and names(imported) == ["cq", "y"]


def test_embedding_of_codes():
    table = np.arange(20, dtype=U8).reshape(5, 4)
    nodes = [node("Gather", "table i", "eq"), dq("eq", "y")]
    proto = model(nodes, {"i": (2,)}, constants=S | {"table": table}, dtypes={"i": np.int64})
    assert operators(check(proto, {"i": np.array([4, 1])})) == ["take"]


def test_codes_that_someone_wants_as_integers():
    nodes = [q("x", "xq"), node("Cast", "xq", "y", to=1)]
    check(model(nodes, {"x": (50,)}, constants=S), {"x": np.linspace(-20, 20, 50, dtype=F32)})


def test_codes_read_with_another_scale():
    nodes = [q("x", "xq"), dq("xq", "y", "t", "z0")]
    check(model(nodes, {"x": (50,)}, constants=S), {"x": np.linspace(-20, 20, 50, dtype=F32)})


def test_scales_that_are_computed():
    nodes = [node("ReduceMax", "x", "m", keepdims=0), q("x", "xq", "m"), dq("xq", "y", "m")]
    check(model(nodes, {"x": (50,)}, constants=S), {"x": np.linspace(-20, 20, 50, dtype=F32)})


def test_float_weights_between_a_pair():
    nodes = [q("w", "wq", "t", "zi"), dq("wq", "wr", "t", "zi"), node("MatMul", "x wr")]
    imported = check(model(nodes, {"x": (2, 3)}, constants=S | {"w": weights(3, 4)}))
    assert operators(imported) == ["matmul"]
    assert dict(imported.imported_plan.tensors) == {"y.weight": entry(F32(0.2), -3, "int8")}


def test_unsigned_weights_are_int8_less_128():
    constants = S | {"wq": np.arange(12, dtype=U8).reshape(3, 4)}
    imported = check(model([dq("wq", "w"), node("MatMul", "x w")], {"x": (2, 3)}, constants=constants))
    assert imported.imported_plan.tensors["y.weight"] == entry(F32(0.1), 0, "int8")


@pytest.mark.parametrize("trans", [0, 1])
def test_gemm_weight_axis_and_factors_are_those_of_the_float_graph(trans):
    scales, shape = F32([0.1, 0.2, 0.3, 0.4]), ((4, 3) if trans else (3, 4))
    constants = {
        "wq": np.arange(12, dtype=I8).reshape(shape),
        "ws": scales,
        "wz": np.zeros(4, I8),
        "bq": np.arange(4, dtype=np.int32),
        "bs": scales / 8,
    }
    nodes = [
        node("DequantizeLinear", "wq ws wz", "w", axis=1 - trans),
        node("DequantizeLinear", "bq bs", "b", axis=0),
        node("Gemm", "x w b", transB=trans, alpha=0.5, beta=2.0),
    ]
    imported = check(model(nodes, {"x": (2, 3)}, constants=constants))
    assert imported.imported_plan.tensors["y.weight"] == entry(scales * F32(0.5), [0] * 4, "int8", 1)
    assert imported.imported_plan.tensors["y.bias"] == entry(scales / 8 * F32(2), [0] * 4, "int32", 0)


def test_blocked_int4_weights():
    codes = np.arange(-8, 8).reshape(8, 2).astype(ml_dtypes.int4)
    constants = {"wq": codes, "ws": F32([[0.1, 0.2], [0.3, 0.4]])}
    nodes = [node("DequantizeLinear", "wq ws", "w", axis=0, block_size=4), node("MatMul", "x w")]
    imported = import_onnx(model(nodes, {"x": (1, 8)}, constants=constants, opset=21))
    expected = codes.astype(F32) * np.repeat(constants["ws"], 4, 0)
    np.testing.assert_allclose(run(imported, {"x": np.ones((1, 8), F32)})[0][0], expected.sum(0), rtol=1e-6)
    assert not imported.imported_plan.tensors


@pytest.mark.parametrize("zeros", [False, True])
def test_integer_products(zeros):
    constants = {"w": np.arange(-6, 6, dtype=I8).reshape(3, 4), "xz": U8(7), "wz": I8([1, -2, 3, 0])}
    proto = model(
        [node("MatMulInteger", "x w" + " xz wz" * zeros)],
        {"x": (2, 3)},
        constants=constants,
        dtypes={"x": U8, "y": np.int32},
    )
    check(proto, {"x": np.array([[0, 255, 7], [1, 2, 3]], U8)})
    constants = {"w": np.arange(-9, 9, dtype=I8).reshape(2, 1, 3, 3), "xz": U8(7), "wz": I8(1)}
    conv = node("ConvInteger", "x w" + " xz wz" * zeros, pads=[1, 0, 1, 1])
    proto = model([conv], {"x": (1, 1, 4, 5)}, constants=constants, dtypes={"x": U8, "y": np.int32})
    check(proto, {"x": np.random.default_rng(0).integers(0, 256, (1, 1, 4, 5)).astype(U8)})


@pytest.mark.parametrize("x", [[-3.0, 0.2, 9.0], [1.0, 2.0, 5.0], [-1.0, -2.0, -7.0]])
def test_dynamic_quantize_linear(x):
    proto = model(
        [node("DynamicQuantizeLinear", "x", "y s z")], {"x": (3,)}, ["y", "s", "z"], dtypes={"y": U8, "z": U8}
    )
    check(proto, {"x": F32(x)})


def test_dynamic_quantization_that_is_not_the_known_pattern():
    nodes = [node("DynamicQuantizeLinear", "x", "xq s z"), node("MatMulInteger", "xq w z")]
    proto = model(nodes, {"x": (2, 3)}, constants={"w": np.arange(12, dtype=I8).reshape(3, 4)}, dtypes={"y": np.int32})
    assert check(proto).imported_plan is None


def test_quantized_operators_without_bias_or_with_float_result():
    constants = S | {"w": np.arange(-6, 6, dtype=I8).reshape(3, 4), "wz": I8(0), "b": np.arange(4, dtype=np.int32)}
    nodes = [q("x", "xq"), node("QGemm", "xq s z w t wz b", domain="com.microsoft")]
    proto = model(nodes, {"x": (2, 3)}, constants=constants, domains=["com.microsoft"])
    imported = import_onnx(proto)
    assert operators(imported) == ["matmul", "add"]
    x = F32([[0.1, 0.2, -0.3], [1, 2, -3]])  # multiples of the scale: quantization changes nothing
    np.testing.assert_allclose(run(imported, {"x": x})[0], run_onnxruntime(proto, {"x": x})[0], atol=1e-5)


def test_refusals():
    def message(*nodes):
        proto = model(nodes, {"x": (1, 4, 4, 2)}, constants=S, domains=["com.microsoft"])
        with pytest.raises(QCompileError) as caught:
            import_onnx(proto)
        return str(caught.value)

    pool = {"domain": "com.microsoft", "name": "p", "channels_last": 1}
    last = node("QLinearGlobalAveragePool", "xq s z s z", "yq", **pool)
    assert message(q("x", "xq"), last, dq("yq", "y")) == (
        "p (QLinearGlobalAveragePool): channels_last is not supported; quantize an NCHW model"
    )
    highest = node("ReduceMax", "x", "m", keepdims=0)
    pool = node("QLinearSigmoid", "xq m z s z", "yq", domain="com.microsoft", name="p")
    assert message(highest, q("x", "xq"), pool, dq("yq", "y")) == (
        "p (QLinearSigmoid): its scale or zero point is computed from the data; quantize the model statically"
    )


def test_names_follow_a_renamed_output():
    nodes = [dq("wq", "w", "t", "zi"), node("MatMul", "x w", "t45"), node("Identity", "t45", "y")]
    imported = import_onnx(model(nodes, {"x": (2, 3)}, constants=S | {"wq": np.ones((3, 4), I8)}))
    assert list(imported.imported_plan.tensors) == ["y.weight"] and names(imported) == ["y"]
