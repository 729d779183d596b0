"""Builds that are locked to the manifest of an earlier one."""

from __future__ import annotations

import dataclasses
import json

import pytest

import qcompile as qc
from qcompile.artifact import MANIFEST
from qcompile.errors import QCompileError
from qcompile.manifest import Manifest
from qcompile.targets.kernels.template import knobs_json
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.tune.locked import LockedSchedules, load_manifest
from qcompile.tune.tasks import tasks_of
from tests.building import cnn, files, plan_of
from tests.targets.running import AVX2
from tests.tune.recorded import record, write


@pytest.fixture(scope="module")
def imported():
    return qc.import_onnx(cnn())


@pytest.fixture(scope="module")
def plan(imported):
    return plan_of(imported)


def log_of(path, imported, plan, number):
    """Records of all layers with legal knobs that are not the default."""
    records = []
    for task in tasks_of(imported, plan, AVX2):
        template, workload = TEMPLATES[task.workload.operator], task.workload
        default = template.default(workload, AVX2)
        knobs = [k for k in template.space(workload, AVX2) if k != default][number]
        records.append(record(workload, AVX2, knobs))
    return write(path, *records)


@pytest.fixture(scope="module")
def tuned(imported, plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    return qc.build(imported, plan, AVX2, out=folder / "a", tuning_records=log_of(folder / "log.db", imported, plan, 0))


def test_the_manifest_keeps_the_schedules(tuned, imported, plan):
    assert [info.layer for info in tuned.manifest.schedules] == ["conv0", "depthwise", "classes"]
    assert {info.source for info in tuned.manifest.schedules} == {"tuned"}
    rows = {layer.name: layer.schedule for layer in tuned.manifest.layers}
    assert [rows[name] for name in ("conv0", "depthwise", "pool", "classes")] == ["tuned", "tuned", "", "tuned"]
    assert str(tuned.path.parent) not in (tuned.path / MANIFEST).read_text()  # nor where the log was


@pytest.mark.parametrize("how", [lambda a: a.path, lambda a: str(a.path / MANIFEST), lambda a: a.manifest])
def test_a_locked_build_repeats_to_the_byte_whatever_the_log_says(tuned, imported, plan, tmp_path, how):
    other = log_of(tmp_path / "log.db", imported, plan, -1)
    assert files(qc.build(imported, plan, AVX2, out=tmp_path / "b", tuning_records=other)) != files(tuned)
    again = qc.build(imported, plan, AVX2, out=tmp_path / "c", tuning_records=other, locked=how(tuned))
    assert files(again) == files(tuned)


def test_without_records_a_build_repeats_to_the_byte(imported, plan, tmp_path, monkeypatch):
    """Also when the user's own log has come into being."""
    before = qc.build(imported, plan, AVX2, out=tmp_path / "a", tuning_records="none")
    assert {info.source for info in before.manifest.schedules} == {"default"}
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    log_of(tmp_path / "qcompile/tuning.db", imported, plan, 0)
    assert files(qc.build(imported, plan, AVX2, out=tmp_path / "b")) != files(before)
    assert files(qc.build(imported, plan, AVX2, out=tmp_path / "c", tuning_records="none")) == files(before)
    assert files(qc.build(imported, plan, AVX2, out=tmp_path / "d", locked=before.path)) == files(before)


def test_another_model_is_refused_by_its_layer(tuned, tmp_path):
    batch = qc.import_onnx(cnn(2))
    with pytest.raises(
        QCompileError, match="conv0: the manifest has no schedule for such a layer; give the same model"
    ):
        qc.build(batch, plan_of(batch), AVX2, out=tmp_path / "b", locked=tuned.path)
    assert not list(tmp_path.iterdir())


def test_another_target_and_other_threads_are_refused(tuned, imported, plan, tmp_path):
    with pytest.raises(QCompileError, match="for x86-avx2, this one is for x86-vnni; give --target x86-avx2"):
        qc.build(imported, plan, "x86-vnni", out=tmp_path / "b", locked=tuned.path)
    with pytest.raises(QCompileError, match="for 1 thread, this one is for 2 threads; give --threads 1"):
        qc.build(imported, plan, AVX2, threads=2, out=tmp_path / "b", locked=tuned.path)


def changed(manifest: Manifest, **changes) -> Manifest:
    first, *rest = manifest.schedules
    return dataclasses.replace(manifest, schedules=(dataclasses.replace(first, **changes), *rest))


def test_another_version_of_the_kernel_is_refused(tuned, imported, plan):
    with pytest.raises(QCompileError, match="conv0: the manifest's schedule is for version 99 of the kernel"):
        qc.build(imported, plan, AVX2, locked=changed(tuned.manifest, template=99))


@pytest.mark.parametrize("knobs", ['{"no":1}', "1", '{"rows":1000,"columns":1,"vectors":1}'])
def test_knobs_that_were_changed_by_hand_must_be_legal(tuned, imported, plan, knobs):
    with pytest.raises(QCompileError, match="conv0: the manifest's knobs are not legal"):
        qc.build(imported, plan, AVX2, locked=changed(tuned.manifest, knobs=knobs))


def test_knobs_may_be_changed_by_hand(tuned, imported, plan):
    info = tuned.manifest.schedules[0]
    workload = Workload.from_key(info.workload, info.batch)
    knobs = TEMPLATES[workload.operator].default(workload, AVX2)
    locked = LockedSchedules(changed(tuned.manifest, knobs=knobs_json(knobs)), AVX2)
    assert locked(workload).knobs == knobs


@pytest.mark.parametrize("name", ["no", "text", "model.onnx"])
def test_what_is_no_manifest_is_told(tmp_path, name):
    (tmp_path / "text").write_text(json.dumps({"format": "other"}))
    (tmp_path / "model.onnx").write_bytes(b"\xff\x00")
    with pytest.raises(QCompileError, match=name):
        load_manifest(tmp_path / name)
