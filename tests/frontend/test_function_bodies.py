"""Operators that the standard defines by others, against ONNX Runtime."""

import numpy as np
import pytest

from qcompile.frontend import import_onnx
from qcompile.frontend.function_bodies import function_body
from qcompile.frontend.onnx_graph import Node
from tests.frontend.onnx_models import check, model, names, node

IMAGE = {"x": (2, 4, 3, 5)}


@pytest.mark.parametrize(
    ("op", "inputs", "opset", "attributes"),
    [
        ("Celu", IMAGE, 12, {"alpha": 2.0}),
        ("Celu", IMAGE, 12, {}),
        ("MeanVarianceNormalization", IMAGE, 13, {}),
        ("Attention", {"q": (1, 3, 4, 8), "k": (1, 3, 6, 8), "v": (1, 3, 6, 8)}, 23, {"is_causal": 1}),
        ("Attention", {"q": (1, 4, 32), "k": (1, 6, 16), "v": (1, 6, 16)}, 23, {"q_num_heads": 4, "kv_num_heads": 2}),
        ("RotaryEmbedding", {"q": (1, 2, 3, 8), "c": (1, 3, 4), "s": (1, 3, 4)}, 23, {"interleaved": 1}),
    ],
)
def test_operator(op, inputs, opset, attributes):
    check(model([node(op, " ".join(inputs), **attributes)], inputs, opset=opset))


def test_attention_with_what_came_before():
    """Absent inputs lie between those that are given."""
    inputs = {"q": (1, 2, 1, 8), "k": (1, 2, 1, 8), "v": (1, 2, 1, 8), "pk": (1, 2, 5, 8), "pv": (1, 2, 5, 8)}
    attention = node("Attention", "q k v _ pk pv", "y nk nv", is_causal=1)
    check(model([attention], inputs, ["y", "nk", "nv"], opset=23))


def test_layer_norm_with_its_mean():
    inputs = {"x": (2, 3, 4)}
    proto = model(
        [node("LayerNormalization", "x s", "y m d", axis=-1)], inputs, ["y", "m", "d"], {"s": np.ones(4, np.float32)}
    )
    check(proto)


def test_tensors_are_named_after_the_operator():
    proto = model([node("Celu", "x", "y", name="c"), node("Celu", "y", "z", alpha=0.5)], {"x": (3,)}, ["z"], opset=12)
    imported = import_onnx(proto)
    assert all(name.startswith(("y", "z")) for name in names(imported))
    assert {layer.node for name, layer in imported.layers.items() if name.startswith("y")} == {"c"}


def test_what_has_no_definition():
    assert function_body(Node("Conv", ("x", "w"), ("y",), "c"), [("float32", (1, 1)), ("float32", (1, 1))], 17) is None
    assert function_body(Node("Celu", ("x",), ("y",), "c"), [("float32", (1,))], 11) is None
