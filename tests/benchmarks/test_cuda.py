"""Cases for GPUs: made here, checked through a driver that emulates the kernels."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import qcompile as qc
from benchmarks.cuda import cases, check, layers, timing
from benchmarks.cuda.cases import with_batch
from benchmarks.cuda.sweep import NEAREST, write_sweep
from benchmarks.models import example
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.runtime import driver
from qcompile.scaled import model_for
from qcompile.targets.cuda.compiler import Cubin
from qcompile.targets.cuda.emulate import emulated_library
from tests.building import cnn, plan_of
from tests.frontend.onnx_models import model, node

pytestmark = pytest.mark.usefixtures("cuda_compiler")

FAKE = Path(__file__).parents[1] / "runtime" / "fake_cuda.cc"


def test_without_a_gpu_the_check_says_why(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(driver, "LIBRARY", "libcuda-of-nowhere.so")
    monkeypatch.setattr("sys.argv", ["check", str(tmp_path)])
    check.main()
    assert capsys.readouterr().out.startswith("skipped: this machine has no NVIDIA driver")


@pytest.mark.slow
def test_a_case_is_checked(monkeypatch, capfd, tmp_path):
    digits = example()
    (name,) = cases._write(digits, [1], "cuda:sm_90", tmp_path, None)
    imported = qc.import_onnx(digits.onnx)
    plan = qc.QuantPlan.load(tmp_path / name / "artifact/plan.json")
    form = run_passes(model_for(imported, plan).module, form_passes(plan, imported.layers))
    library = tmp_path / "libfakecuda.so"
    emulated_library(lower_cuda(form)[0].source + FAKE.read_text(), library, optimize=0)
    monkeypatch.setattr(driver, "LIBRARY", str(library))
    monkeypatch.setattr("sys.argv", ["check", str(tmp_path)])
    check.main()
    assert capfd.readouterr().out.splitlines()[1:] == [f"{name:24} the oracle's bits"]
    with np.load(tmp_path / name / "outputs.npz") as outputs:
        wrong = {key: outputs[key] + 1 for key in outputs.files}
    np.savez(tmp_path / name / "outputs.npz", **wrong)
    with pytest.raises(SystemExit, match="failed, or other results than the oracle's: case digits-1"):
        check.main()


def test_random_layers_are_checked(monkeypatch, tmp_path):
    class Recorder:
        source = ""

        def cubin(self, source, arch):
            Recorder.source = source
            return Cubin(b"\x7fELF", {})

    monkeypatch.setattr(layers, "find_compiler", Recorder)
    count = layers.write_layers(tmp_path, "sm_90", each=1, networks=4)
    library = tmp_path / "libfakecuda.so"
    emulated_library(Recorder.source + FAKE.read_text(), library, optimize=0)
    monkeypatch.setattr(driver, "LIBRARY", str(library))
    assert timing.Gpu().layers(tmp_path) == [] and count >= 15
    with np.load(tmp_path / "arrays.npz") as arrays:  # results of the oracle may lie columns first
        results = {name: np.asfortranarray(arrays[name]) for name in arrays.files}
    np.savez(tmp_path / "arrays.npz", **results)
    assert timing.Gpu().layers(tmp_path) == []
    rows = json.loads((tmp_path / "layers.json").read_text())
    rows[2]["launches"][-1][1] = 0  # a grid of no blocks
    (tmp_path / "layers.json").write_text(json.dumps(rows))
    assert timing.Gpu().layers(tmp_path) == [2]


@pytest.mark.slow
def test_a_sweep_has_every_tile_of_every_product(tmp_path):
    imported = qc.import_onnx(cnn())
    write_sweep(imported, plan_of(imported), tmp_path, "sm_90")
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert len({row["layer"] for row in rows}) == 2 and 2 * NEAREST <= len(rows) <= 2 * NEAREST + 2
    assert [row["default"] for row in rows].count(True) == 2
    code = gzip.decompress((tmp_path / "kernels.cubin.gz").read_bytes())
    assert all(row["kernel"].encode() in code for row in rows) and b"peak" in code


def test_a_network_for_more_samples():
    reshaped = model([node("Reshape", "x s", "y", "r")], {"x": (1, 2, 3)}, constants={"s": np.array([1, 6], np.int64)})
    wider = with_batch(reshaped, 4)
    imported = qc.import_onnx(wider)
    assert (imported.inputs[0].shape, imported.outputs[0].shape) == ((4, 2, 3), (4, 6))


def test_a_part_that_fails_is_named_and_the_others_go_on(monkeypatch, capfd, tmp_path):
    """The fake GPU has no such kernels, a peer is not installed here, and code is for another card."""
    library = tmp_path / "libfakecuda.so"
    emulated_library(FAKE.read_text(), library, optimize=0)
    for name in ("a-1", "b-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "case.json").write_text("{}")
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers/arch").write_text("sm_75\n")
    assert check.parts_of(tmp_path, True, ["a-1", "c-1"]) == [
        *("random layers", "case a-1", "case b-1", "kernels a-1"),
        *(f"{peer} {batch}" for peer in ("torch", "onnxruntime", "tensorrt") for batch in (1, 32)),
    ]
    monkeypatch.setattr(check, "parts_of", lambda *_: ["random layers", "case a-1", "tensorrt 1", "case b-1"])
    monkeypatch.setattr(
        "sys.argv", ["check", str(tmp_path), "--driver", str(library), "--json", str(tmp_path / "r.json")]
    )
    with pytest.raises(SystemExit, match="case a-1, case b-1"):
        check.main()
    card, layers, first, peer, second = capfd.readouterr().out.splitlines()
    assert card.startswith("emulated, sm_90, ") and layers.startswith(
        "random layers            left out: its code is for"
    )
    assert "case a-1                 FAILED: " in first and "case b-1                 FAILED: " in second
    assert peer.startswith("tensorrt 1               left out: No module named 'tensorrt'")
    said = json.loads((tmp_path / "r.json").read_text())["case a-1"]["failed"]
    assert said.startswith("Traceback") and "exact" not in said
    monkeypatch.setattr("sys.argv", ["check", str(tmp_path), "--driver", str(library), "--sanitizer", "racecheck"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit):
        check.main()
    assert "random layers            FAILED: compute-sanitizer: No such file" in capfd.readouterr().out


def test_equal_weights_are_stored_once(tmp_path):
    for name, content in {"a": b"equal", "b": b"equal", "c": b"other"}.items():
        (tmp_path / name).write_bytes(content)
    for name in "bc":
        cases.share(tmp_path / "a", tmp_path / name)
    assert (tmp_path / "a").samefile(tmp_path / "b") and (tmp_path / "c").read_bytes() == b"other"
