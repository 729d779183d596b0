"""Plans are files: what is written is read back, and what is no plan is refused in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompile.errors import QCompileError
from qcompile.ops import Affine
from qcompile.plan import LayerPlan, QuantPlan, TensorPlan

scales = st.floats(min_value=2.0**-126, max_value=2.0**100, width=32)


@given(st.lists(scales, min_size=1, max_size=5), st.integers(-128, 127), st.booleans())
def test_a_plan_survives_its_file(values, zero_point, per_channel):
    zero_points = (zero_point, *(0 for _ in values[1:]))
    tensor = TensorPlan(tuple(values), zero_points, "int8", 0 if per_channel else None, "own", "", 'a "why"')
    plan = QuantPlan({"conv/1:0": tensor}, {"conv/1:0": LayerPlan("int8", "told so")}, ("x",), (), "entropy")
    assert QuantPlan.from_json(plan.to_json()) == plan


def test_scales_are_float32():
    assert TensorPlan((0.1,), (3,), "uint8").affine == Affine(float(np.float32(0.1)), 3)


def test_the_file_can_be_read_by_people(tmp_path):
    QuantPlan({"x": TensorPlan((0.1, 0.25), (0, 0), "int8", 0)}).save(tmp_path / "plan.json")
    line = next(line for line in (tmp_path / "plan.json").read_text().splitlines() if '"x"' in line)
    assert '"scale": [0.1, 0.25], "zero_point": [0]' in line


def test_a_per_channel_tensor_has_no_single_scale():
    with pytest.raises(ValueError, match="no single scale"):
        _ = TensorPlan((0.1, 0.2), (0, 0), "int8", 0).affine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "p.json: not a quantization plan (JSONDecodeError: Expecting value: line 1 column 1 (char 0))"),
        ("[]", "p.json: not a quantization plan (TypeError: list indices must be integers or slices, not str)"),
        ('{"version": 9}', "p.json: version 9 of the plan format is not known here; this qcompile reads version 1"),
        ('{"version": 1}', "p.json: not a quantization plan (KeyError: 'tensors')"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(QCompileError) as error:
        QuantPlan.load("p.json")
    assert str(error.value).startswith(message)


def test_a_missing_plan_is_named():
    with pytest.raises(QCompileError, match=r"nowhere\.json: .*No such file"):
        QuantPlan.load("nowhere.json")


def test_groups_survive_the_file():
    weight = TensorPlan((0.1, 0.25), (0, 0), "int4", 1, group=32, group_scale=bytes([1, 255, 16, 0x0A]))
    plan = QuantPlan({"y.weight": weight, "x": TensorPlan((0.1,), (3,), "uint8")}, {"y": LayerPlan("w4a8")})
    text = plan.to_json()
    assert '"group": 32, "group_scale": "01ff100a"' in text and text.count("group_scale") == 1
    assert QuantPlan.from_json(text) == plan
