"""From a model to an artifact that runs: what is in it, that it is the same every time, and on every row."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

import qcompile as qc
from qcompile.artifact import FILES
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.reference import interpreter
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.select import can_run, select_target
from qcompile.targets.x86 import ROWS
from qcompile.tune.locations import default_log
from qcompile.tune.tasks import tasks_of
from tests.building import cnn, files, plan_of, samples, with_island
from tests.frontend.onnx_models import run_onnxruntime
from tests.tune.recorded import record, write

ROOT = Path(__file__).parents[1]
EVERY = [row.name for row in ROWS] + [f"{row.name}+{word}" for row in ROWS for word, _ in row.optional]


@pytest.fixture(scope="module")
def imported():
    return qc.import_onnx(cnn(2))


@pytest.fixture(scope="module")
def plan(imported):
    return plan_of(imported)


@pytest.fixture(scope="module")
def artifact(imported, plan, tmp_path_factory):
    return qc.build(imported, plan, "x86-avx2", out=tmp_path_factory.mktemp("built") / "a")


def oracle(imported, plan, feeds):
    return interpreter.run(run_passes(imported.module, form_passes(plan, imported.layers)), feeds)


def test_it_computes_what_the_oracle_computes(imported, plan, artifact):
    runner = qc.load(artifact.path)
    for feeds in samples(imported, 3, seed=7):
        np.testing.assert_array_equal(runner.run(feeds)["y"], oracle(imported, plan, feeds)["y"])


def test_int8_is_close_to_the_model(imported, artifact):
    (feeds,) = samples(imported, 1, seed=7)
    (want,) = run_onnxruntime(cnn(2), feeds)
    assert np.abs(qc.load(artifact.path).run(feeds)["y"] - want).max() < 0.1 * np.abs(want).max()


def test_without_a_plan_everything_is_float(imported, tmp_path):
    built = qc.build(imported, target="x86-avx2", out=tmp_path / "a")
    assert {layer.format for layer in built.manifest.layers} == {"fp32"}
    (feeds,) = samples(imported, 1)
    np.testing.assert_allclose(
        qc.load(built.path).run(feeds)["y"], *run_onnxruntime(cnn(2), feeds), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("target", EVERY)
def test_every_row_gives_the_same_bits(imported, plan, target, tmp_path):
    """One plan, all machines: the arithmetic is the format's, not the instruction's."""
    built = qc.build(imported, plan, target, out=tmp_path / "a")  # also rows that this machine does not have
    assert built.manifest.target == target and set(built.manifest.features) == set(select_target(target).features)
    if not can_run(select_target(target)):
        pytest.skip(f"built, but this CPU cannot run {target}")
    (feeds,) = samples(imported, 1, seed=7)
    np.testing.assert_array_equal(qc.load(built.path).run(feeds)["y"], oracle(imported, plan, feeds)["y"])


def test_two_threads_give_the_same_bits(imported, plan, tmp_path):
    built = qc.build(imported, plan, "x86-avx2", out=tmp_path / "a", threads=2)
    assert built.manifest.threads == 2
    (feeds,) = samples(imported, 1, seed=7)
    np.testing.assert_array_equal(qc.load(built.path).run(feeds)["y"], oracle(imported, plan, feeds)["y"])


def test_two_builds_are_equal_to_the_byte(imported, plan, artifact, tmp_path):
    again = qc.build(qc.import_onnx(cnn(2)), plan_of(imported), "x86-avx2", out=tmp_path / "b")
    assert again.path.name != artifact.path.name
    assert files(again) == files(artifact) and sorted(files(again)) == sorted(FILES)


def test_layers_are_told_by_their_onnx_names(artifact):
    layers = {layer.name: layer for layer in artifact.manifest.layers if layer.macs}
    assert {name: layer.macs for name, layer in layers.items()} == {
        "conv0": 2 * 20 * 6 * 6 * 3 * 9,
        "depthwise": 2 * 20 * 6 * 6 * 9,
        "classes": 2 * 5 * 20,
    }
    assert {name: layer.format for name, layer in layers.items()} == dict.fromkeys(layers, "int8")
    assert layers["conv0"].kernel.startswith("conv2d vpmaddwd.256 ")
    assert layers["depthwise"].kernel.startswith("depthwise_conv2d ")
    assert layers["classes"].inputs[0] == (2, 20) and layers["classes"].output == (2, 5)
    assert layers["conv0"].scale > 0 and 0 <= layers["conv0"].zero_point <= 255
    assert not any(layer.reason for layer in artifact.manifest.layers)


def test_calls_name_the_layers_that_they_compute(artifact):
    named = [call.layer for call in artifact.manifest.calls]
    assert [name for name in named if name in ("conv0", "depthwise", "classes")] == ["conv0", "depthwise", "classes"]


def test_an_island_is_listed_with_its_reason(tmp_path):
    imported = qc.import_onnx(with_island())
    built = qc.build(imported, plan_of(imported), "x86-avx2", out=tmp_path / "a")
    rows = {layer.name: layer for layer in built.manifest.layers}
    (island,) = [layer for layer in built.manifest.layers if layer.op == "cumsum"]
    assert (island.name, island.format) == ("sum", "fp32") and "cumsum" in island.reason
    assert rows["first"].format == rows["second"].format == "int8"
    (feeds,) = samples(imported, 1, seed=7)
    got = qc.load(built.path).run(feeds)
    for name, want in zip(("y", "s"), run_onnxruntime(with_island(), feeds), strict=True):
        assert np.abs(got[name] - want).max() < 0.05 * np.abs(want).max()


def test_manifest_says_where_it_came_from(imported, artifact):
    manifest = artifact.manifest
    assert [(i.name, i.shape, i.dtype) for i in manifest.inputs] == [("x", (2, 3, 12, 12), "float32")]
    assert [(o.name, o.shape, o.dtype) for o in manifest.outputs] == [("y", (2, 5), "float32")]
    assert manifest.workspace_bytes > 0 and manifest.triple == "x86_64-linux-gnu"
    assert artifact.plan.to_json() == plan_of(imported).to_json()


def test_integer_inputs_and_outputs_say_what_codes_mean(imported, tmp_path):
    plan = plan_of(imported, integer_inputs=["x"], integer_outputs=["y"])
    built = qc.build(imported, plan, "x86-avx2", out=tmp_path / "a")
    (x,), (y,) = built.manifest.inputs, built.manifest.outputs
    assert (x.dtype, y.dtype) == ("uint8", "uint8")
    assert x.quantization == plan.tensors["x"].affine and y.quantization == plan.tensors["y"].affine


def test_notes_are_kept(tmp_path):
    imported = qc.import_onnx(cnn("N"))
    built = qc.build(imported, target="x86-avx2", out=tmp_path / "a", notes=["built by a test"])
    assert len(built.manifest.notes) == 2 and built.manifest.notes[1] == "built by a test"
    assert "batch" in built.manifest.notes[0]


@pytest.fixture(scope="module")
def log(imported, plan, tmp_path_factory):
    """Knobs that are not the default for every layer."""
    target, records = select_target("x86-avx2"), []
    for task in tasks_of(imported, plan, target):
        template = TEMPLATES[task.workload.operator]
        default = template.default(task.workload, target)
        others = [knobs for knobs in template.space(task.workload, target) if knobs != default]
        knobs = min(others, key=partial(template.cycles, task.workload, target))
        records.append(record(task.workload, target, knobs))
    return write(tmp_path_factory.mktemp("log") / "log.db", *records)


def test_tuned_layers_give_the_same_bits(imported, plan, artifact, log, tmp_path):
    built = qc.build(imported, plan, "x86-avx2", out=tmp_path / "a", tuning_records=log)
    assert {info.source for info in built.manifest.schedules} == {"tuned"}
    assert (built.path / "model.so").read_bytes() != (artifact.path / "model.so").read_bytes()
    (feeds,) = samples(imported, 1, seed=7)
    np.testing.assert_array_equal(qc.load(built.path).run(feeds)["y"], oracle(imported, plan, feeds)["y"])


def test_fresh_weights_other_names_and_another_batch_are_hits(log, tmp_path):
    retrained = cnn(4)
    for each in retrained.graph.node:
        each.name += "_again"
    for each in retrained.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each) * np.float32(1.1), each.name))
    model = qc.import_onnx(retrained)
    built = qc.build(model, plan_of(model), "x86-avx2", out=tmp_path / "a", tuning_records=log)
    assert [(info.layer, info.source) for info in built.manifest.schedules] == [
        ("conv0_again", "tuned"),
        ("depthwise_again", "tuned"),
        ("classes_again", "tuned"),
    ]


def test_the_users_own_log_is_used_without_asking(imported, plan, log, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    default_log().parent.mkdir()
    shutil.copy(log, default_log())
    built = qc.build(imported, plan, "x86-avx2", out=tmp_path / "a")
    assert {info.source for info in built.manifest.schedules} == {"tuned"}


def test_a_failing_build_leaves_the_older_artifact(imported, plan, tmp_path):
    built = qc.build(imported, plan, "x86-avx2", out=tmp_path / "a")
    before = files(built)

    def broken(module):
        raise RuntimeError("a pass that fails")

    with pytest.raises(RuntimeError, match="a pass that fails"):
        qc.build(imported, plan, "x86-avx2", out=tmp_path / "a", passes=[broken])
    assert files(built) == before and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_place_that_cannot_be_written_is_told_before_any_work(imported, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(qc.QCompileError, match="name a folder that is new, empty or an older artifact"):
        qc.build(imported, target="x86-avx2", out=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_temporary_folder_by_default(imported):
    built = qc.build(imported, target="x86-avx2")
    assert built.path.is_dir() and sorted(files(built)) == sorted(FILES)


_WITHOUT_OUT = """
import qcompile as qc
from tests.building import cnn
path = qc.build(qc.import_onnx(cnn()), target="x86-avx2", tuning_records="none").path
print(path, path.is_dir())
"""


def test_a_temporary_folder_is_gone_with_its_process(tmp_path):
    code = [sys.executable, "-c", _WITHOUT_OUT]
    said = subprocess.check_output(code, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True, cwd=ROOT, timeout=120)
    assert said.startswith(str(tmp_path)) and said.endswith("True\n")
    assert not list(tmp_path.glob("qcompile-*"))


def test_passes_and_dumps(imported, plan, tmp_path):
    """The caller's list of passes takes the place of the default one; every step can be looked at."""
    passes = form_passes(plan, imported.layers)
    built = qc.build(imported, plan, "x86-avx2", out=tmp_path / "a", passes=passes, dump_ir=tmp_path / "ir")
    assert built.manifest.layers == qc.build(imported, plan, "x86-avx2", out=tmp_path / "b").manifest.layers
    numbers = sorted(int(p.name[:3]) for p in (tmp_path / "ir").iterdir())
    assert numbers == list(range(numbers[0], numbers[-1] + 1)) and numbers[0] > 0  # import_onnx dumps those before
    qc.import_onnx(cnn(2), dump_ir=tmp_path / "ir")
    assert sorted(int(p.name[:3]) for p in (tmp_path / "ir").iterdir()) == list(range(numbers[-1] + 1))
