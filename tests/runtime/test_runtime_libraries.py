"""Operators that TVM computes by calling its runtime: the artifact names the library; loading needs no compiler."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import qcompile as qc
from tests.frontend.onnx_models import model, node, run_onnxruntime

INT = {"i": np.int64}
TOPK = model([node("TopK", "x k", "v i", axis=1)], {"x": (2, 30)}, ("v", "i"), {"k": np.array([3])}, dtypes=INT)
ARGMAX = model([node("ArgMax", "x", "i", axis=1, keepdims=0)], {"x": (2, 30)}, ("i",), dtypes=INT)
X = np.random.default_rng(0).permutation(60).astype(np.float32).reshape(2, 30)
PROGRAM = """
import sys
import numpy as np
import qcompile as qc
folder, x, out = sys.argv[1:]
np.savez(out, **qc.load(folder).run({"x": np.load(x)}))
assert "tvm" not in sys.modules
"""


@pytest.mark.parametrize(
    ("network", "needs"), [(TOPK, ["libtvm_runtime_extra.so"]), (ARGMAX, [])], ids=["TopK", "ArgMax"]
)
def test_the_artifact_runs_where_tvm_is_not_imported(network, needs, tmp_path):
    built = qc.build(qc.import_onnx(network), target="x86-avx2", out=tmp_path / "a")
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["runtime_libraries"] == needs
    np.save(tmp_path / "x.npy", X)
    command = [sys.executable, "-c", PROGRAM, built.path, tmp_path / "x.npy", tmp_path / "y.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    got = np.load(tmp_path / "y.npz")
    names = [output.name for output in network.graph.output]
    for name, want in zip(names, run_onnxruntime(network, {"x": X}), strict=True):
        np.testing.assert_array_equal(got[name], want)


def test_a_library_that_is_missing_is_named(tmp_path):
    built = qc.build(qc.import_onnx(TOPK), target="x86-avx2", out=tmp_path / "a")
    manifest = built.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("libtvm_runtime_extra.so", "../lib/libother.so"))
    with pytest.raises(qc.QCompileError, match=r"libother\.so: the TVM runtime is missing"):
        qc.load(built.path)
