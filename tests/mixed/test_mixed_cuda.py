"""Mixed precision for a GPU where there is none: predicted times, simulated losses, the plan's kernels emulated."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.mixed.goal import Drop, Goal
from qcompile.mixed.mixed import plan_mixed
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.reference import interpreter
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.rows import ROWS
from tests.building import samples
from tests.e2e.test_w4a8 import convolutions

TARGET = "cuda:sm_90"
FORMATS = ("int8", "w4a8", "half")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model, plans, data)"""
    path = tmp_path_factory.mktemp("mixed") / "model.onnx"
    onnx.save(convolutions(), path)
    model = qc.import_onnx(path)
    data = samples(model, 12)
    stats = qc.calibrate(model, data[:4])
    return model, {name: qc.plan_uniform(model, stats, name) for name in FORMATS}, data


@pytest.fixture(scope="module")
def found(made):
    """The smallest plan that loses less than int4 weights everywhere: of more than one format."""
    table = qc.analyze(*made, TARGET, accumulate=False)
    losses = [group.entries["w4a8"].alone for group in table.groups if "w4a8" in group.entries]
    return table, qc.assign(table, max_loss=sum(losses) - max(losses) / 2, objective="size")


def test_a_table_for_a_gpu_that_is_not_here(found):
    table, assignment = found
    assert (table.target, table.device) == (TARGET, "") and {f.name for f in table.formats} == {"fp32", *FORMATS}
    entries = [entry for group in table.groups for entry in group.entries.values()]
    assert all(entry.seconds > 0 and not entry.measured for entry in entries)
    assert len(set(assignment.formats.values())) > 1


def test_the_plan_is_near_the_oracle_emulated(made, found):
    model, _, data = made
    table, assignment = found
    plan = qc.to_plan(assignment, table)
    form = run_passes(model.module, form_passes(plan, model.layers))
    program, notes = lower_cuda(form, target=ROWS[0].narrowed("sm_90"))
    assert {note.op for note in notes} & {"conv2d_int4", "conv2d_f16"}
    (want,) = interpreter.run(form, data[0]).values()
    got = np.zeros(want.shape, np.float32)
    Emulated(program.source, optimize=0).run(program, list(data[0].values()), [got])
    # Halves are summed in another order, which may tip a code of a later layer: a step of it then.
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3 * np.abs(want).max())


def test_searched_and_checked_on_the_other_half(made):
    model, plans, data = made
    goal = Goal(Drop(0.5), None, None, "size")
    found = plan_mixed(model, {"half": plans["half"], "int8": plans["int8"]}, data, goal, TARGET, num_samples=4)
    assert found.met and found.seconds is None and found.table.target == TARGET
    assert found.chosen.predicted.bytes < next(t for t in found.trials if t.name == "fp32").predicted.bytes
