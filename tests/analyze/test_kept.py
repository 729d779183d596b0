"""An analysis that goes on compiles nothing again, and leaves nothing behind."""

from __future__ import annotations

from importlib import import_module

import onnx
import pytest

import qcompile as qc
from qcompile.calibrate import random_data
from tests.building import cnn

analysis = import_module("qcompile.analyze.analyze")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """An analysis with a checkpoint; ``run.compiled`` counts."""
    onnx.save(cnn(), tmp_path / "model.onnx")
    model = qc.import_onnx(tmp_path / "model.onnx")
    feeds = list(random_data(model.inputs, 3))
    plan = qc.plan_uniform(model, qc.calibrate(model, feeds), "int8")
    simulate = analysis.simulate

    def counted(*arguments):
        call.compiled += 1
        return simulate(*arguments)

    def call(**options):
        options = {"checkpoint": tmp_path / "c", "measure_seconds": False, **options}
        return analysis.analyze(model, plan, feeds, accumulate=False, **options)

    call.compiled = 0
    monkeypatch.setattr(analysis, "simulate", counted)
    return call


def stop_at(sample: int):
    def stop(done: int) -> None:
        if done == sample:
            raise KeyboardInterrupt

    return stop


def files(folder) -> set[str]:
    return {file.name for file in folder.iterdir()} - {"model.onnx"}


def test_the_simulation_is_kept_for_who_goes_on(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop_at(2))
    assert files(tmp_path) == {"c", "c.simulation"}
    table = run(resume=True)
    assert run.compiled == 1 and table.samples == 3
    assert files(tmp_path) == set()


def test_another_simulation_is_compiled_for_who_begins_anew(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop_at(2))
    (tmp_path / "c.simulation" / "key").write_text("of another model")
    run(resume=True)
    assert run.compiled == 2
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop_at(1))
    run()
    assert run.compiled == 4 and files(tmp_path) == set()


def test_who_did_not_get_anywhere_leaves_nothing(run, tmp_path):
    with pytest.raises(qc.QCompileError, match="labels"):
        run(metric="top1")
    assert run.compiled == 1 and files(tmp_path) == set()


def test_a_checkpoint_of_another_analysis_is_found_out_before_compiling(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop_at(1))
    with pytest.raises(qc.QCompileError, match="of another analysis"):
        run(metric="mse", resume=True)
    assert run.compiled == 1 and files(tmp_path) == {"c", "c.simulation"}
