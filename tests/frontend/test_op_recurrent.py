"""LSTM, GRU and RNN against ONNX Runtime."""

import numpy as np
import onnx
import pytest

from qcompile.errors import QCompileError
from qcompile.frontend import import_onnx
from qcompile.targets.kernels.recurrent import GATES
from tests.frontend.onnx_models import check, model, node, operators, weights

STEPS, BATCH, INPUTS, HIDDEN = 5, 2, 3, 19
OUTPUTS = {"LSTM": "y yh yc", "GRU": "y yh", "RNN": "y yh"}


def layer(
    kind: str, directions: int = 1, operands: str = "x w r b", lengths=None, opset: int = 17, **attributes
) -> onnx.ModelProto:
    """One layer; ``operands`` are its inputs in ONNX's order, constants but for x and what is called "run_..."."""
    wide = GATES[kind] * HIDDEN
    batch_first = attributes.get("layout", 0)
    state = (BATCH, directions, HIDDEN) if batch_first else (directions, BATCH, HIDDEN)
    every = {
        "w": weights(directions, wide, INPUTS, seed=1),
        "r": weights(directions, wide, HIDDEN, seed=2) / 4,
        "b": weights(directions, 2 * wide, seed=3),
        "h": weights(*state, seed=4),
        "c": weights(*state, seed=5),
        "p": weights(directions, 3 * HIDDEN, seed=6),
        "lengths": np.asarray([STEPS, 3] if lengths is None else lengths, np.int32),
    }
    names = operands.split()
    inputs = {"x": (BATCH, STEPS, INPUTS) if batch_first else (STEPS, BATCH, INPUTS)}
    inputs |= {name: every[name.removeprefix("run_")].shape for name in names if name.startswith("run_")}
    outputs = OUTPUTS[kind]
    only = node(kind, operands, outputs, hidden_size=HIDDEN, **attributes)
    constants = {name: every[name] for name in names if name in every}
    return model([only], inputs, outputs.split(), constants, opset, dtypes={"run_lengths": np.int32})


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_directions(kind, direction):
    check(layer(kind, 2 if direction == "bidirectional" else 1, direction=direction))


@pytest.mark.parametrize("kind", GATES)
def test_states_that_are_given(kind):
    check(layer(kind, operands="x w r _ _ run_h" + " run_c" * (kind == "LSTM")))


@pytest.mark.parametrize("kind", GATES)
def test_lengths_of_samples(kind):
    proto = layer(kind, 2, "x w r b run_lengths", direction="bidirectional")
    check(proto, {"x": weights(STEPS, BATCH, INPUTS), "run_lengths": np.array([3, STEPS], np.int32)})


def test_lengths_that_are_known_and_full_cost_nothing():
    proto = layer("LSTM", operands="x w r b lengths", lengths=[STEPS, STEPS])
    assert operators(import_onnx(proto)) == operators(import_onnx(layer("LSTM")))
    check(proto)


@pytest.mark.parametrize("opset", [7, 22])
def test_versions(opset):
    check(layer("LSTM", opset=opset))


def test_peepholes_clipping_and_coupled_gates():
    check(layer("LSTM", operands="x w r b _ h c p", clip=0.5, input_forget=1))


@pytest.mark.parametrize("operands", ["x w r b", "x w r"])
def test_reset_after_the_product(operands):
    check(layer("GRU", 2, operands, direction="bidirectional", linear_before_reset=1))


def test_activations_take_their_parameters_in_turn():
    proto = layer(
        "LSTM",
        2,
        direction="bidirectional",
        activations=["HardSigmoid", "ScaledTanh", "LeakyRelu", "Sigmoid", "Softsign", "Elu"],
        activation_alpha=[0.25, 1.5, 0.1, 0.7],
        activation_beta=[0.4, 0.8],
    )
    check(proto)


def test_computed_weights():
    proto = layer("GRU", operands="x run_w run_r b")
    feeds = {"x": weights(STEPS, BATCH, INPUTS), "run_w": weights(1, 57, INPUTS), "run_r": weights(1, 57, HIDDEN) / 4}
    check(proto, feeds)


def test_an_unknown_activation_is_named():
    with pytest.raises(QCompileError, match=r"LSTM.*activation Cube is not supported"):
        import_onnx(layer("LSTM", activations=["Cube", "Tanh", "Tanh"]))
