"""Fourier transforms against ONNX Runtime."""

import numpy as np
import pytest

from qcompile.errors import QCompileError
from qcompile.frontend import import_onnx
from tests.frontend.onnx_models import check, model, node, weights


@pytest.mark.parametrize(
    ("parts", "attributes"),
    [
        (1, {}),
        (2, {}),
        (1, {"inverse": 1}),
        (2, {"inverse": 1}),
        (1, {"onesided": 1}),
        (1, {"axis": 2}),
        (2, {"axis": 2}),
    ],
)
def test_dft(parts, attributes):
    check(model([node("DFT", "x", **attributes)], {"x": (2, 6, 5, parts)}, opset=17))


def test_dft_of_a_shorter_length_along_an_axis_that_is_an_input():
    constants = {"n": np.array(5), "axis": np.array(-3)}
    check(model([node("DFT", "x n axis")], {"x": (7, 3, 1)}, constants=constants, opset=20))


def test_dft_of_a_longer_length_pads_by_zeros():
    constants = {"n": np.array(9), "axis": np.array(1)}
    imported = import_onnx(model([node("DFT", "x n axis")], {"x": (1, 7, 1)}, constants=constants, opset=20))
    assert imported.outputs[0].shape == (1, 9, 2)


@pytest.mark.parametrize("operands", ["x step window", "x step _ length", "x step window length"])
@pytest.mark.parametrize("shape", [(2, 40), (2, 40, 1)])
def test_stft(operands, shape):
    constants = {"step": np.array(5), "window": np.hanning(12).astype(np.float32), "length": np.array(12)}
    constants = {name: value for name, value in constants.items() if name in operands}
    check(model([node("STFT", operands)], {"x": shape}, constants=constants))


def test_two_sided_stft():
    constants = {"step": np.array(4), "window": np.abs(weights(8))}
    check(model([node("STFT", "x step window", onesided=0)], {"x": (1, 20, 1)}, constants=constants))


def test_complex_signals_are_refused():
    constants = {"step": np.array(4), "length": np.array(8)}
    with pytest.raises(QCompileError, match=r"STFT.*a complex signal is not supported"):
        import_onnx(model([node("STFT", "x step _ length", onesided=0)], {"x": (1, 20, 2)}, constants=constants))
