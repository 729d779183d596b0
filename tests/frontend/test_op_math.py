"""Elementwise operators, products, normalisation and softmax against ONNX Runtime."""

import numpy as np
import pytest

from tests.frontend.onnx_models import check, model, node, operators, weights

UNARY = {
    **{op: {} for op in ("Relu", "Sigmoid", "Tanh", "Exp", "Erf", "Abs", "Neg", "Floor", "Ceil", "Round", "Sign")},
    **{
        op: {}
        for op in ("HardSwish", "Softplus", "Softsign", "Mish", "Sin", "Cos", "Sinh", "Cosh", "Atan", "Reciprocal")
    },
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "LeakyRelu": {"alpha": 0.2},
    "Elu": {"alpha": 1.5},
    "Selu": {},
    "ThresholdedRelu": {"alpha": 0.5},
    "Gelu": {"approximate": "tanh"},
}


@pytest.mark.parametrize("op", UNARY)
def test_unary(op):
    check(model([node(op, "x", **UNARY[op])], {"x": (2, 3, 5)}, opset=20), {"x": 3 * weights(2, 3, 5)})


def test_gelu_by_erf():
    check(model([node("Gelu", "x")], {"x": (2, 5)}, opset=20))


def test_extreme_values():
    x = np.array([-1e30, -200, -0.0, 0.5, 200, 1e30], np.float32)
    nodes = [node(op, "x", op) for op in ("Softplus", "Sigmoid", "Tanh", "HardSwish", "Elu")]
    check(model(nodes, {"x": (6,)}, ["Softplus", "Sigmoid", "Tanh", "Elu"], opset=14), {"x": x})


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"])
def test_binary_broadcasts(op):
    feeds = {"x": np.abs(weights(2, 3, 1, 5)) + 0.1, "z": weights(3, 4, 1, seed=2)}
    check(model([node(op, "x z")], {"x": (2, 3, 1, 5), "z": (3, 4, 1)}), feeds)


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_variadic(op, count):
    inputs = {"a": (2, 3), "b": (3,), "c": (1, 1)}
    check(model([node(op, " ".join(list(inputs)[:count]))], {k: inputs[k] for k in list(inputs)[:count]}))


def test_integer_arithmetic():
    nodes = [node(op, "a b", op) for op in ("Add", "Mul", "Div", "Sub")]
    proto = model(
        nodes,
        {"a": (4,), "b": (4,)},
        ["Add", "Mul", "Div", "Sub"],
        dtypes=dict.fromkeys("ab", np.int64) | dict.fromkeys(("Add", "Mul", "Div", "Sub"), np.int64),
    )
    check(proto, {"a": np.array([-7, 7, 5, -1]), "b": np.array([2, -2, 3, 4])})


@pytest.mark.parametrize("base", [np.float32, np.int64])
@pytest.mark.parametrize("exponent", [np.float32, np.int32])
@pytest.mark.parametrize("constant", [True, False])
def test_power_has_the_type_of_its_base(base, exponent, constant):
    values = {"b": np.array([3, 2, 5], base), "e": np.array([2, 3, 0], exponent)}
    fixed = {"e": values.pop("e")} if constant else {}
    dtypes = {name: value.dtype.type for name, value in values.items()} | {"y": base}
    check(model([node("Pow", "b e")], {name: (3,) for name in values}, constants=fixed, dtypes=dtypes), values)


@pytest.mark.parametrize("attributes", [{}, {"detect_negative": 0}, {"detect_positive": 0}])
def test_infinities(attributes):
    x = np.array([1, np.inf, -np.inf, np.nan], np.float32)
    check(model([node("IsInf", "x", **attributes)], {"x": (4,)}, dtypes={"y": np.bool_}, opset=13), {"x": x})


@pytest.mark.parametrize("attributes", [{}, {"p": 1, "axis": 1}])
def test_normalized_vectors(attributes):
    check(model([node("LpNormalization", "x", **attributes)], {"x": (2, 3, 5)}))


@pytest.mark.parametrize("low", [None, -0.5])
@pytest.mark.parametrize("high", [None, 0.7])
def test_clip_is_one_operator(low, high):
    constants = {k: np.float32(v) for k, v in (("lo", low), ("hi", high)) if v is not None}
    names = ["lo" if low is not None else "_", "hi" if high is not None else "_"]
    proto = model([node("Relu", "x", "r"), node("Clip", " ".join(["r", *names]))], {"x": (2, 9)}, constants=constants)
    imported = check(proto)
    assert operators(imported) == ["relu", *(["clip"] if constants else [])]


def test_clip_of_old_opsets_and_of_integers():
    check(model([node("Clip", "x", min=-0.3)], {"x": (2, 9)}, opset=8))
    proto = model(
        [node("Clip", "x lo")], {"x": (3,)}, constants={"lo": np.int64(2)}, dtypes={"x": np.int64, "y": np.int64}
    )
    check(proto, {"x": np.array([-4, 2, 5])})


def test_clip_with_computed_and_crossed_bounds():
    check(
        model([node("Clip", "x lo hi")], {"x": (9,), "lo": (), "hi": ()}),
        {"x": weights(9), "lo": np.asarray(-1, np.float32), "hi": np.asarray(0.1, np.float32)},
    )
    check(model([node("Clip", "x lo hi")], {"x": (9,)}, constants={"lo": np.float32(1), "hi": np.float32(-1)}))


@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (4,), (3, 1, 4)])
def test_prelu(shape):
    check(model([node("PRelu", "x s")], {"x": (2, 3, 2, 4)}, constants={"s": weights(*shape)}))


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, None])
def test_softmax_flattens_before_opset_13(op, axis, opset):
    attributes = {} if axis is None else {"axis": axis}
    check(model([node(op, "x", **attributes)], {"x": (2, 3, 4)}, opset=opset))


def test_softmax_over_channels_of_1x1_images_needs_no_reshape():
    assert operators(check(model([node("Softmax", "x")], {"x": (2, 5, 1, 1)}, opset=11))) == ["softmax"]


GEMMS = {
    "plain": ({}, (4, 5), (5,)),
    "transB": ({"transB": 1}, (5, 4), (1, 5)),
    "scaled": ({"alpha": 0.5, "beta": 2.0}, (4, 5), ()),
    "both, full bias": ({"transB": 1, "alpha": 0.1}, (5, 4), (3, 5)),
    "no bias": ({"alpha": 3.0}, (4, 5), None),
}


@pytest.mark.parametrize("case", GEMMS)
def test_gemm_with_constants(case):
    attributes, shape, bias = GEMMS[case]
    constants = {"w": weights(*shape)} | ({} if bias is None else {"b": weights(*bias, seed=1)})
    proto = model([node("Gemm", "x w" + " b" * (bias is not None), **attributes)], {"x": (3, 4)}, constants=constants)
    assert operators(check(proto)) == ["matmul"] + ["add"] * (bias is not None)


def test_gemm_without_constants():
    proto = model([node("Gemm", "a b c", transA=1, alpha=0.5, beta=0.3)], {"a": (4, 3), "b": (4, 5), "c": (5,)})
    check(proto)


@pytest.mark.parametrize(
    "a, b", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (4, 5)), ((3, 4), (4,))]
)
def test_matmul(a, b):
    check(model([node("MatMul", "x w")], {"x": a}, constants={"w": weights(*b)}))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3)])
def test_batch_norm_is_multiply_and_add(shape):
    constants = {k: np.abs(weights(3, seed=i)) + 0.1 for i, k in enumerate("abcd")}
    imported = check(model([node("BatchNormalization", "x a b c d", epsilon=1e-3)], {"x": shape}, constants=constants))
    assert operators(imported) == ["multiply", "add"]


def test_normalisations():
    constants = {"g": weights(3), "b": weights(3, seed=1), "lg": weights(4, 5), "lb": weights(4, 5, seed=2)}
    nodes = [
        node("InstanceNormalization", "x g b", "in"),
        node("LayerNormalization", "x lg lb", "ln", axis=2),
        node("LayerNormalization", "x lg", "last", axis=-2, epsilon=1e-2),
        node("LRN", "x", "lrn", size=3),
    ]
    check(model(nodes, {"x": (2, 3, 4, 5)}, ["in", "ln", "last", "lrn"], constants), rtol=1e-4)


@pytest.mark.parametrize("equation", ["bhi,bhj->bij", "bhi,bhj->bhij", "b h i , b h j -> b h"])
def test_einsum(equation):
    check(
        model(
            [node("Einsum", "a b", equation=equation)], {"a": (2, 3, 4), "b": (2, 3, 4 if "> b h" in equation else 5)}
        )
    )


def test_transposing_einsum():
    check(model([node("Einsum", "a", equation="bij->bji")], {"a": (2, 3, 4)}))
