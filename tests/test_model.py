"""A model survives its file, names and plan included."""

from __future__ import annotations

import json
import zipfile

import pytest
import tvm
from tvm import relax

from qcompile.errors import QCompileError
from qcompile.graph import MainBuilder, read
from qcompile.model import Layer, Model, TensorSpec
from qcompile.plan import QuantPlan, TensorPlan


@pytest.fixture
def model() -> Model:
    x = relax.Var("in/put:0", relax.TensorType((1, 4), "float32"))
    builder = MainBuilder([x])
    y = builder.emit(relax.op.add(x, relax.const([[1.0, 2.0, 3.0, 4.0]], "float32")), "add/y:0")
    spec = TensorSpec("in/put:0", (1, 4), "float32")
    plan = QuantPlan({"in/put:0": TensorPlan((0.1,), (3,), "uint8", kind="imported")})
    layers = {"add/y:0": Layer("add", "Add")}
    return Model(
        builder.module([y]),
        (spec,),
        (TensorSpec("add/y:0", (1, 4), "float32"),),
        layers,
        "m.onnx",
        7,
        "ab",
        plan,
        ("n",),
    )


def test_a_model_survives_its_file(model, tmp_path):
    model.save(tmp_path / "m.zip")
    loaded = Model.load(tmp_path / "m.zip")
    tvm.ir.assert_structural_equal(loaded.module, model.module)
    assert [var.name for var, _ in read(loaded.module).bindings] == ["add/y:0"]
    for field in ("inputs", "outputs", "layers", "source", "source_bytes", "source_sha256", "imported_plan", "notes"):
        assert getattr(loaded, field) == getattr(model, field), field


def test_equal_models_give_equal_bytes(model, tmp_path):
    model.save(tmp_path / "a.zip")
    model.save(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "version 9 of the model format is not known here"),
        ({"tvm": "0.1"}, "written with apache-tvm 0.1, this is"),
        ({"format": "other"}, r"not a saved model \(ValueError: not of format qcompile.model\)"),
    ],
)
def test_a_foreign_file_is_refused(model, tmp_path, change, message):
    model.save(tmp_path / "m.zip")
    with zipfile.ZipFile(tmp_path / "m.zip") as archive:
        head = json.loads(archive.read("model.json"))
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("model.json", json.dumps({**head, **change}))
    with pytest.raises(QCompileError, match=message):
        Model.load(tmp_path / "m.zip")


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "m.zip").write_text("nonsense")
    with pytest.raises(QCompileError, match=r"m\.zip: not a saved model \(BadZipFile"):
        Model.load(tmp_path / "m.zip")
    with pytest.raises(QCompileError, match=r"nowhere: cannot be read \(No such file or directory\)"):
        Model.load(tmp_path / "nowhere")
