"""Which static shapes inputs get, and which wishes are refused."""

import pytest

from qcompile.errors import QCompileError
from qcompile.frontend.input_shapes import resolve_inputs
from qcompile.frontend.onnx_graph import InputInfo


def shapes(given=None, **inputs):
    infos = [InputInfo(name, "float32", dims) for name, dims in inputs.items()]
    specs, notes = resolve_inputs(infos, given)
    return {s.name: s.shape for s in specs}, notes


def refusal(given=None, **inputs):
    with pytest.raises(QCompileError) as caught:
        shapes(given, **inputs)
    return str(caught.value)


def test_static_shapes_stay():
    assert shapes(x=(2, 3), y=()) == ({"x": (2, 3), "y": ()}, ())


@pytest.mark.parametrize("batch", ["N", None])
def test_batch_becomes_1_with_a_note(batch):
    note = "dynamic batch of x fixed to 1 (change it with --input-shapes x:[1,3])"
    assert shapes(x=(batch, 3)) == ({"x": (1, 3)}, (note,))


def test_given_symbol_counts_for_every_input():
    assert shapes({"a": (4, 8)}, a=("N", "S"), b=("N", "S", 3)) == ({"a": (4, 8), "b": (4, 8, 3)}, ())


def test_given_static_shape_may_be_repeated():
    assert shapes({"x": [2, 3]}, x=(2, 3)) == ({"x": (2, 3)}, ())


def test_input_of_unknown_rank():
    assert shapes({"x": (2, 3)}, x=None) == ({"x": (2, 3)}, ())
    assert refusal(x=None) == "input x: its shape is unknown; give it: --input-shapes x:[...]"


def test_other_symbols_must_be_given():
    assert refusal(x=("N", 3, "H", None)) == (
        "input x: dimension 2 (H) of [N,3,H,?] is not fixed; fix it: --input-shapes x:[1,3,1,1]"
    )


def test_contradictions():
    assert refusal({"x": (2, 4)}, x=("N", 3)) == (
        "input x: --input-shapes gives 2x4, the model has Nx3; dimension 1 must be 3"
    )
    assert refusal({"x": (2,)}, x=("N", 3)) == "input x: --input-shapes gives 2, the model has Nx3; give 2 dimensions"
    assert refusal({"a": (2,), "b": (3,)}, a=("N",), b=("N",)) == (
        "input b: --input-shapes gives 3, the model has N; dimension 0 must be 2"
    )


@pytest.mark.parametrize("shape", [(0, 3), (-1, 3), (1.5, 3), (True, 3)])
def test_what_is_no_shape(shape):
    text = f"{shape[0]}x3"
    assert refusal({"x": shape}, x=("N", 3)) == f"input x: {text} is not a shape; give positive integers"


def test_unknown_input():
    assert refusal({"imput": (1,)}, input=("N",), mask=("N",)) == (
        "--input-shapes imput: no such input; did you mean 'input'? (one of: input, mask)"
    )
