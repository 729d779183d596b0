"""The table of sensitivities as a file, and what it refuses."""

from __future__ import annotations

import dataclasses
import json

import pytest

from qcompile.assign.table import Cast, Check, Entry, Format, Group, Pair, SensitivityTable, Uniform
from qcompile.errors import QCompileError
from qcompile.plan import LayerPlan, QuantPlan, TensorPlan

FP32, INT8 = Format("fp32", "float32", 4), Format("int8", "uint8", 1)


def small() -> SensitivityTable:
    groups = (
        Group(
            "stem", ("stem",), {"fp32": Entry(0, 3e-6, 400), "int8": Entry(0.01, 1e-6, 100, 0.01, True, {"hawq": 2})}
        ),
        Group("tail", ("a", "b"), {"fp32": Entry(0, 2e-6, 40)}, "b follows a", {"int8": "computes in int64"}),
    )
    plan = QuantPlan({"x": TensorPlan((0.1,), (3,), "uint8")}, {"stem": LayerPlan("int8")}, method="minmax")
    return SensitivityTable(
        model="m.onnx",
        model_sha256="00",
        target="x86",
        metric="kl",
        samples=8,
        formats=(FP32, INT8),
        groups=groups,
        casts=(Cast("x", 100, "", ("stem",)), Cast("stem", 50, "stem", ("tail",))),
        pairs=(Pair(("stem", "tail"), ("int8", "fp32"), -0.001),),
        checks=(Check("int8", {"stem": "int8", "tail": "fp32"}, 0.01, 0.012),),
        uniform={"int8": Uniform(0.01, 4e-6, 140)},
        plans={"int8": plan},
        reads={"stem": ("x", "stem.weight")},
        sources={"stem": ("x",), "tail": ("stem",), "": ("tail",)},
        notes=("made up",),
    )


def test_round_trip(tmp_path):
    table = small()
    table.save(tmp_path / "t.json")
    assert SensitivityTable.load(tmp_path / "t.json") == table


def test_casts_cost_only_between_unlike_activations():
    table = dataclasses.replace(small(), formats=(FP32, INT8, Format("w8", "float32", 4)), cast_overhead=1e-7)
    assert table.cast_seconds(100, "fp32", "w8") == 0
    assert table.cast_seconds(100, "fp32", "int8") == pytest.approx(1e-7 + 100 * 5 / table.cast_bandwidth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99 of the table's format is not known here"),
        ({"format": "something"}, "not a table of sensitivities"),
        ({"groups": [{"name": "a"}]}, "not a table of sensitivities"),
        ({"color": "red"}, "not a table of sensitivities"),
        ({"rest_seconds": -1}, "rest_seconds is -1"),
    ],
)
def test_refused_files(change, message):
    data = {**json.loads(small().to_json()), **change}
    with pytest.raises(QCompileError, match=message):
        SensitivityTable.from_json(json.dumps(data), "t.json")


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(QCompileError, match="No such file"):
        SensitivityTable.load(tmp_path / "none.json")
    with pytest.raises(QCompileError, match="t.json: not a table of sensitivities"):
        SensitivityTable.from_json("{", "t.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": (INT8,)}, "no format 'fp32'"),
        ({"groups": (small().groups[0],) * 2}, "stem: group given 2 times"),
        ({"groups": (Group("g", ("l",), {"int8": Entry(0, 0, 0)}),), "casts": (), "pairs": ()}, "no entry for 'fp32'"),
        ({"casts": (Cast("x", 1, "nobody", ()),)}, "x: no group 'nobody' in the table"),
        ({"pairs": (Pair(("stem", "tail"), ("int8", "int8"), 0),)}, "tail: no format 'int8' in the table"),
        ({"plans": {"int4": QuantPlan()}}, "no format 'int4' in the table"),
        ({"cast_bandwidth": 0}, "cast_bandwidth is 0"),
    ],
)
def test_contradictions(change, message):
    with pytest.raises(QCompileError, match=message):
        dataclasses.replace(small(), **change)


def test_values_must_be_finite():
    table = small()
    broken = Group("stem", ("stem",), {"fp32": Entry(float("nan"), 0, 0)})
    with pytest.raises(QCompileError, match="stem in fp32: alone is nan"):
        dataclasses.replace(table, groups=(broken, table.groups[1]), pairs=())
