"""What takes and puts elements where indices say, against ONNX Runtime."""

import numpy as np
import pytest

from qcompile.errors import QCompileError
from qcompile.frontend import import_onnx
from tests.frontend.onnx_models import check, model, node, weights

REDUCTIONS = ["none", "add", "mul", "max", "min"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("constant", [True, False])
def test_scatter_elements(reduction, constant):
    feeds = {"x": weights(3, 5), "i": np.array([[0, -1, 2], [4, 4, 1]]), "u": weights(2, 3, seed=1)}
    if reduction == "none":
        feeds["i"][1, 1] = 3
    inputs = {name: value.shape for name, value in feeds.items()}
    fixed = {"i": feeds.pop("i")} if constant else {}
    scatter = node("ScatterElements", "x i u", axis=1, reduction=reduction)
    proto = model([scatter], {n: inputs[n] for n in feeds}, constants=fixed, dtypes={"i": np.int64}, opset=18)
    check(proto, feeds)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("depth", [1, 2])
def test_scatter_nd(reduction, depth):
    indices = np.array([[[2], [-4]], [[0], [1]]]) if depth == 1 else np.array([[[1, 2], [0, -1]], [[3, 0], [-1, 1]]])
    feeds = {"x": weights(4, 3, 2), "i": indices, "u": weights(2, 2, *[3, 2][depth - 1 :], seed=1)}
    if reduction == "none":
        feeds["i"] = feeds["i"] % 4 if depth == 2 else np.array([[[2], [3]], [[0], [1]]])
        feeds["i"][..., -1] %= [4, 3][depth - 1]
    inputs = {name: value.shape for name, value in feeds.items()}
    proto = model([node("ScatterND", "x i u", reduction=reduction)], inputs, dtypes={"i": np.int64}, opset=18)
    check(proto, feeds)


@pytest.mark.parametrize("opset", [9, 10])
def test_scatter_of_old(opset):
    constants = {"i": np.array([[1, 0, 2]]), "u": weights(1, 3, seed=1)}
    check(model([node("Scatter", "x i u", axis=0)], {"x": (3, 3)}, constants=constants, opset=opset))


def test_region_maxima_are_refused():
    constants = {"r": np.array([[0, 0, 3, 3]], np.float32), "b": np.array([0])}
    proto = model([node("RoiAlign", "x r b", mode="max")], {"x": (1, 2, 6, 6)}, constants=constants)
    with pytest.raises(QCompileError, match=r"RoiAlign.*the largest of a region's samples is not supported"):
        import_onnx(proto)
