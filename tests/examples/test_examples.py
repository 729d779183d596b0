"""Every example runs, from another folder, and says what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qcompile as qc
from qcompile.targets.x86 import ROWS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(tmp_path: Path, script: str, *args: str) -> str:
    """Standard output of an example that ends well."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *args],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo_compares_four_builds(tmp_path):
    out = run(tmp_path, "demo.py", "--seconds", "0.05", "-o", "demo")
    rows = re.findall(r"(onnxruntime|qcompile) +│ (fp32|int8) +│ +([\d.]+)% │", out)
    assert [row[:2] for row in rows] == [
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8"),
        ("qcompile", "fp32"),
        ("qcompile", "int8"),
    ]
    assert all(float(accuracy) >= 97 for *_, accuracy in rows)
    assert "100% of its" in out, "a layer of the example model is not in integers"
    assert qc.load(tmp_path / "demo/int8").manifest.layers


def test_python_api_leaves_a_file_for_each_step(tmp_path):
    out = run(tmp_path, "python_api.py", "work")
    assert {"model.zip", "stats.npz", "plan.json", "digits"} == {file.name for file in (tmp_path / "work").iterdir()}
    assert int(re.search(r"(\d+) of 500 digits right", out)[1]) >= 485
    assert "scores fp32" in out, "the excluded layer was quantized"
    layers = {layer.name: layer.format for layer in qc.load(tmp_path / "work/digits").manifest.layers}
    assert layers["classify"] == "fp32" and layers["stem.conv"] == "int8"


def test_own_pass_changes_the_weights_that_run(tmp_path):
    out = run(tmp_path, "own_pass.py", "8", "2")
    accuracy = {int(bits): float(percent) for bits, percent in re.findall(r"(\d)-bit weights: accuracy ([\d.]+)%", out)}
    assert accuracy[8] >= 97, "8 bits leave the weights as they are"
    assert accuracy[2] < 60, "three values a weight are too few for this network"


def test_cross_build_gives_the_same_bits_on_every_target(tmp_path):
    lines = run(tmp_path, "cross_build.py", "libraries").splitlines()
    assert [line.split(":")[0] for line in lines] == [row.name for row in ROWS]
    assert all("the same bits" in line or "built;" in line for line in lines)


@pytest.mark.slow
def test_training_makes_a_model_of_the_same_quality(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    out = run(tmp_path, "train_digits.py", "-o", "digits")
    assert float(re.search(r"test images: ([\d.]+) %", out)[1]) >= 97
    assert {file.name for file in (tmp_path / "digits").iterdir()} == {
        file.name for file in (EXAMPLES / "digits").iterdir()
    }
