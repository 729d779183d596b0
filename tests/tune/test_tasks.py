"""Which workloads a model has."""

from __future__ import annotations

import pytest

import qcompile as qc
from qcompile.errors import QCompileError
from qcompile.tune.tasks import merged, selected, tasks_of
from tests.building import cnn, plan_of
from tests.frontend.onnx_models import model, node, weights
from tests.targets.running import AVX2


@pytest.fixture(scope="module")
def imported():
    return qc.import_onnx(cnn())


@pytest.fixture(scope="module")
def tasks(imported):
    return tasks_of(imported, plan_of(imported), AVX2)


def test_a_model_has_one_task_a_workload_in_its_order(tasks):
    assert [task.workload.operator for task in tasks] == ["conv2d", "depthwise_conv2d", "dense"]
    assert [task.layers for task in tasks] == [("conv0",), ("depthwise",), ("classes",)]


def test_layers_of_one_workload_share_a_task():
    nodes = [node("Conv", f"{a} w{i}", b, f"conv{i}", pads=[1] * 4) for i, (a, b) in enumerate(["xa", "ab", "by"])]
    constants = {f"w{i}": weights(16, 16, 3, 3, seed=i) for i in range(3)}
    chain = qc.import_onnx(model(nodes, {"x": (1, 16, 8, 8)}, constants=constants))
    (first, *rest) = tasks_of(chain, plan_of(chain), AVX2)
    layers = [task.layers for task in (first, *rest)]
    assert sorted(name for names in layers for name in names) == ["conv0", "conv1", "conv2"]
    assert ("conv0", "conv1") in layers  # the last one makes floats, for the caller


def test_formats_are_different_tasks_and_equal_ones_are_there_once(imported, tasks):
    real = tasks_of(imported, qc.plan_uniform(imported, None, "fp32"), AVX2)
    both = merged([tasks, real, tasks])
    assert both == [*tasks, *real]
    assert [task.workload.integer for task in both] == [True] * 3 + [False] * 3


def test_tasks_are_chosen_by_a_layers_name(tasks):
    assert selected(tasks, ["classes", "conv0"]) == [tasks[0], tasks[2]]
    with pytest.raises(QCompileError, match="no task has a layer 'clases'; did you mean 'classes'"):
        selected(tasks, ["clases"])


def test_weights_of_all_layers_count():
    nodes = [node("Conv", f"{a} w{i}", b, f"conv{i}", pads=[1] * 4) for i, (a, b) in enumerate(["xa", "ab", "by"])]
    constants = {f"w{i}": weights(16, 16, 3, 3, seed=i) for i in range(3)}
    chain = qc.import_onnx(model(nodes, {"x": (1, 16, 8, 8)}, constants=constants))
    assert sum(task.weight_bytes for task in tasks_of(chain, plan_of(chain), AVX2)) == 3 * 16 * 16 * 9
