"""The first step of the public interface: a file or a module becomes a tidied model."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
import tvm

import qcompile as qc
from qcompile.frontend import import_onnx as read_onnx
from qcompile.passes.pipeline import run_passes, tidy_passes
from qcompile.reference import interpreter
from tests.building import cnn, samples
from tests.frontend.onnx_models import operators
from tests.passes.float_modules import module, weight


def test_a_file_is_known_by_name_size_and_hash(tmp_path):
    onnx.save(cnn(), tmp_path / "m.onnx")
    imported = qc.import_onnx(tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    assert imported.source.endswith("m.onnx") and imported.source_bytes == len(data)
    assert imported.source_sha256 == hashlib.sha256(data).hexdigest()
    assert qc.import_onnx(str(tmp_path / "m.onnx")).source_sha256 == imported.source_sha256
    assert qc.import_onnx(cnn()).source_sha256 == ""


def test_it_is_tidied():
    imported = qc.import_onnx(cnn())
    tvm.ir.assert_structural_equal(imported.module, run_passes(read_onnx(cnn()).module, tidy_passes()))
    assert "batch_norm" not in operators(imported)
    feeds = samples(imported, 1)[0]
    want = interpreter.run(read_onnx(cnn()).module, feeds)["y"]
    np.testing.assert_allclose(interpreter.run(imported.module, feeds)["y"], want, rtol=1e-4, atol=1e-4)


def test_shapes_of_inputs(tmp_path):
    assert qc.import_onnx(cnn("N")).inputs[0].shape == (1, 3, 12, 12)
    assert qc.import_onnx(cnn("N"), {"x": (4, 3, 12, 12)}).inputs[0].shape == (4, 3, 12, 12)
    with pytest.raises(qc.QCompileError, match="x"):
        qc.import_onnx(cnn("N"), {"x": (4, 3, 13, 12)})


def test_each_pass_is_dumped(tmp_path):
    qc.import_onnx(cnn(), dump_ir=tmp_path)
    names = [f"{i:03d}_{each.info.name}.py" for i, each in enumerate(tidy_passes())]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_a_relax_module(tmp_path):
    def write(b, x):
        return [b.emit(tvm.relax.op.nn.relu(b.emit(tvm.relax.op.matmul(x, weight(6, 3)), "m")), "y")]

    imported = qc.import_relax(module(write, x=(2, 6)), dump_ir=tmp_path)
    assert [(i.name, i.shape) for i in imported.inputs] == [("x", (2, 6))]
    assert [o.name for o in imported.outputs] == ["y"] and imported.source_sha256 == ""
    assert len(list(tmp_path.iterdir())) == len(tidy_passes())
    built = qc.build(imported, target="x86-avx2", out=tmp_path / "a")
    feeds = {"x": np.ones((2, 6), np.float32)}
    want = interpreter.run(imported.module, feeds)["y"]
    np.testing.assert_allclose(qc.load(built.path).run(feeds)["y"], want, rtol=1e-5, atol=1e-6)


def test_no_such_file(tmp_path):
    with pytest.raises(qc.QCompileError, match=r"none\.onnx"):
        qc.import_onnx(tmp_path / "none.onnx")
