"""What logs know of GPUs: keyed by architecture, looked up by builds, transferred with care, locked by manifests."""

from __future__ import annotations

import json
from dataclasses import astuple, replace

import onnx
import pytest
from typer.testing import CliRunner

import qcompile as qc
from qcompile.cli.app import app
from qcompile.report.tables import facts
from qcompile.runtime import driver
from qcompile.targets.cuda.rows import ROWS
from qcompile.targets.kernels.template import DEFAULT, TRANSFERRED, TUNED
from qcompile.targets.kernels.templates import TEMPLATES, instructions
from qcompile.targets.kernels.workload import Workload
from qcompile.tune.log import TuningLog
from qcompile.tune.lookup import LoggedSchedules, task_key
from qcompile.tune.record import Search, Task
from qcompile.tune.session import open_tasks
from qcompile.tune.tasks import TuningTask, tasks_of
from tests.building import cnn, files, plan_of
from tests.tune.recorded import record, write
from tests.tune.test_gpu import conv, dense, depthwise

SM_80, SM_90 = (ROWS[0].narrowed(arch) for arch in ("sm_80", "sm_90"))


def other(workload: Workload, target=SM_90):
    """Legal knobs that are not the default ones."""
    template = TEMPLATES[workload.operator]
    default = template.default(workload, target)
    return next(knobs for knobs in template.space(workload, target) if knobs != default)


@pytest.mark.parametrize("workload", [conv(), conv(3, residual=True), depthwise(2), dense()], ids=lambda w: w.summary)
def test_a_workload_comes_back_from_its_key(workload):
    assert Workload.from_key(workload.key, workload.batch) == workload
    assert instructions(workload, SM_90) == "sm_90"


def test_records_are_of_one_architecture(tmp_path):
    workload = conv()
    with TuningLog.open(write(tmp_path / "a.db", record(workload, SM_90, other(workload)))) as log:
        assert LoggedSchedules([log], SM_90)(workload).source == TUNED
        assert LoggedSchedules([log], SM_90)(workload).knobs == other(workload)
        assert LoggedSchedules([log], SM_80)(workload).source == DEFAULT


@pytest.mark.parametrize(
    "knobs",
    [
        '{"pixels":64}',
        '{"channels":64,"pixels":64,"slices":1,"stages":4,"tiles":2,"warps_m":2,"warps_n":2}',
        '{"channels":7,"pixels":64,"slices":1,"stages":4,"warps_m":2,"warps_n":2}',
        '{"channels":64,"pixels":64,"slices":1,"stages":4.0,"warps_m":2,"warps_n":2}',
        '{"channels":256,"pixels":256,"slices":4,"stages":6,"warps_m":4,"warps_n":4}',
    ],
)
def test_records_that_cannot_be_used_are_passed_over(tmp_path, knobs):
    workload = conv()
    fine = record(workload, SM_90, other(workload), us=20)
    with TuningLog.open(write(tmp_path / "a.db", record(workload, SM_90, knobs, us=1), fine)) as log:
        assert LoggedSchedules([log], SM_90)(workload).knobs == other(workload)


def test_another_batch_is_another_problem(tmp_path):
    """Its knobs are taken where the model says that they do as well as the default ones; its search is not done."""
    template, few, many = TEMPLATES["conv2d_cuda"], conv(1, 64, 64, 14), conv(64, 64, 64, 14)
    best = {w: template.default(w, SM_90) for w in (few, many)}
    assert best[few] != best[many]
    with TuningLog.open(write(tmp_path / "a.db", record(many, SM_90, best[many]))) as log:
        assert LoggedSchedules([log], SM_90)(few).source == DEFAULT
        near = conv(63, 64, 64, 14)
        assert LoggedSchedules([log], SM_90)(near).knobs == best[many]
        key = Task(*task_key(many, SM_90))
        log.set_search(Search(*astuple(key)[:4], 9, True, "2026-01-31T12:00:00Z"))
        states = open_tasks([TuningTask(w, ("a",)) for w in (few, many)], SM_90, log)
    assert [state.known for state in states] == [False, True] and [state.before for state in states] == [0, 1]


def test_shapes_that_are_near_serve_each_other(tmp_path):
    template, old, new = TEMPLATES["conv2d_cuda"], conv(8, 64, 64, 14), conv(8, 64, 64, 13)
    with TuningLog.open(write(tmp_path / "a.db", record(old, SM_90, template.default(old, SM_90)))) as log:
        found = LoggedSchedules([log], SM_90)(new)
    assert (found.knobs, found.source) == (template.default(old, SM_90), TRANSFERRED)


@pytest.fixture(scope="module")
def built(tmp_path_factory, cuda_compiler):
    """(model, plan, log with knobs for one layer on sm_90, artifact)."""
    folder = tmp_path_factory.mktemp("tuned")
    model = qc.import_onnx(cnn(2))
    plan = plan_of(model)
    workload = tasks_of(model, plan, SM_90)[0].workload
    log = write(folder / "a.db", record(workload, SM_90, other(workload)))
    target = ROWS[0].narrowed("sm_80,sm_90")
    return model, plan, log, qc.build(model, plan, target, out=folder / "a", tuning_records=log)


def test_a_build_has_the_knobs_of_each_architecture(built):
    model, plan, _, artifact = built
    workload = tasks_of(model, plan, SM_90)[0].workload
    found = {(s.architecture, s.source): s for s in artifact.manifest.schedules if s.workload == workload.key}
    assert set(found) == {("sm_80", DEFAULT), ("sm_90", TUNED)}
    tile = other(workload)
    launches = artifact.manifest.launches
    (first,) = (i for i, launch in enumerate(launches["sm_90"]) if launch.layer == found["sm_90", TUNED].layer)
    assert launches["sm_90"][first].block == tile.threads and launches["sm_90"][first].shared == tile.shared_bytes
    assert launches["sm_80"][first].block != tile.threads or launches["sm_80"][first].shared != tile.shared_bytes


def test_a_build_is_locked_to_an_earlier_one(built, tmp_path):
    model, plan, _, artifact = built
    again = qc.build(model, plan, ROWS[0].narrowed("sm_80,sm_90"), out=tmp_path / "b", locked=artifact.path)
    assert files(again) == files(artifact)
    with pytest.raises(qc.QCompileError, match="the manifest is of a build for cuda:sm_80,sm_90, this one is for cuda"):
        qc.build(model, plan, "cuda:sm_90", out=tmp_path / "c", locked=artifact.path)
    changed = replace(artifact.manifest, schedules=artifact.manifest.schedules[1:])
    with pytest.raises(qc.QCompileError, match="the manifest has no schedule for such a layer"):
        qc.build(model, plan, ROWS[0].narrowed("sm_80,sm_90"), out=tmp_path / "d", locked=changed)


def run(*arguments: str):
    return CliRunner().invoke(app, ["tune", *arguments])


def test_tasks_are_listed_without_a_gpu(tmp_path):
    onnx.save(cnn(2), tmp_path / "model.onnx")
    log = str(tmp_path / "a.db")
    options = ["--tasks", "list", "--json", "--tuning-records", log]
    done = run(str(tmp_path / "model.onnx"), "--target", "cuda:sm_90", *options)
    assert done.exit_code == 0, done.output
    tasks = json.loads(done.stdout)
    assert {task["workload"]["operator"] for task in tasks} == {"conv2d_cuda", "depthwise_conv2d_cuda", "dense_cuda"}
    several = run("model.onnx", "--target", "cuda", *options)
    assert str(several.exception).startswith("each of sm_75, sm_80, sm_86, sm_89, sm_90 has tasks of its own; name one")


@pytest.mark.parametrize("options", [(), ("--runner", "local")])
def test_without_a_gpu_one_sentence_says_so(options, monkeypatch, tmp_path):
    monkeypatch.setattr(driver, "LIBRARY", "libcuda-of-nowhere.so")
    log = str(tmp_path / "a.db")
    done = run("model-of-nowhere.onnx", "--target", "cuda:sm_90", "--tuning-records", log, *options)
    assert str(done.exception) == (
        "--runner local: this machine has no NVIDIA driver (libcuda.so.1); tune on a machine that has one, or "
        "over RPC: --rpc HOST:PORT"
    )
    counted = run("model.onnx", "--target", "cuda:sm_90", "--tuning-records", log, "--runner", "icount")
    assert str(counted.exception) == "--runner icount: instructions are counted of ARM code only; leave it out"


def test_a_report_counts_the_schedules_of_each_architecture(built):
    said = dict(facts(built[-1]))["schedules"]
    counts = len(built[-1].manifest.schedules) // 2
    assert said == f"sm_80: {counts} default; sm_90: 1 tuned, {counts - 1} default"
