"""Reductions against ONNX Runtime."""

import numpy as np
import pytest

from tests.frontend.onnx_models import check, model, node, weights

OPS = ["Mean", "Sum", "Max", "Min", "Prod", "SumSquare", "L1", "L2", "LogSum", "LogSumExp"]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("opset", [11, 18])
def test_reduce(op, opset):
    x = np.abs(weights(2, 3, 4)) + 0.1
    if opset == 11:
        nodes = [node(f"Reduce{op}", "x", "y", axes=[0, -1]), node(f"Reduce{op}", "x", "z", keepdims=0)]
        proto = model(nodes, {"x": x.shape}, "yz", opset=opset)
    else:
        nodes = [
            node(f"Reduce{op}", "x a", "y", keepdims=0),
            node(f"Reduce{op}", "x", "z"),
            node(f"Reduce{op}", "x none", "same", noop_with_empty_axes=1),
        ]
        outputs = ["y", "z"] if op in ("SumSquare", "L1", "L2", "LogSum", "LogSumExp") else ["y", "z", "same"]
        proto = model(nodes, {"x": x.shape}, outputs, {"a": [-1, 1], "none": np.zeros(0, np.int64)}, opset)
    check(proto, {"x": x}, rtol=1e-4)


def test_log_sum_exp_does_not_overflow():
    check(model([node("ReduceLogSumExp", "x", keepdims=0)], {"x": (3,)}, opset=13), {"x": np.float32([500, 501, -900])})


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool(op):
    check(model([node(op, "x")], {"x": (2, 3, 5, 4)}))
    check(model([node(op, "x")], {"x": (2, 3, 7)}))
