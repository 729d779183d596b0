"""Times of layers on GPUs that are not at hand."""

from __future__ import annotations

import pytest

import qcompile as qc
from qcompile import graph
from qcompile.analyze.costs import Seconds
from qcompile.analyze.gpu_costs import gpu_costs
from qcompile.assign.structure import Structure
from qcompile.passes.lower_cuda import predict_launches
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.targets.cuda.architectures import architecture
from qcompile.targets.cuda.rows import ROWS
from qcompile.targets.kernels.workload import Workload
from tests.building import model, node, samples
from tests.frontend.onnx_models import weights
from tests.tune.recorded import record, write

FORMATS = ("int8", "w4a8", "half", "bf16")


@pytest.fixture(scope="module")
def made():
    """A wide layer, which computes much, and a small one; (model, plans, structure)."""
    nodes = [
        node("Conv", "x w0 b0", "c0", "wide", pads=[1, 1, 1, 1]),
        node("Relu", "c0", "r0", "relu"),
        node("GlobalAveragePool", "r0", "p", "pool"),
        node("Flatten", "p", "f", "flatten"),
        node("Gemm", "f w1 b1", "y", "small", transB=1),
    ]
    shapes = {"w0": (256, 256, 3, 3), "b0": (256,), "w1": (10, 256), "b1": (10,)}
    constants = {name: weights(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    imported = qc.import_onnx(model(nodes, {"x": (16, 256, 28, 28)}, constants=constants))
    stats = qc.calibrate(imported, samples(imported, 1))
    plans = {name: qc.plan_uniform(imported, stats, name) for name in FORMATS}
    return imported, plans, Structure(graph.read(imported.module))


def of(made, name):
    costs = gpu_costs(*made, ROWS[0].narrowed(name))
    return costs, {format: costs.layers["r0", format].seconds for format in ("fp32", *FORMATS)}


def test_layers_are_predicted_in_every_format(made):
    costs, wide = of(made, "sm_90")
    assert {(layer, format) for layer, format in costs.layers if layer != "p"} == {
        (layer, format) for layer in ("r0", "y") for format in ("fp32", *FORMATS)
    }
    assert not any(cost.measured for cost in costs.layers.values()) and costs.device == ""
    assert costs.cast_bandwidth == architecture("sm_90").memory and costs.cast_overhead > 0
    # A wide layer's products take the time: of int8 half of those of 16 bits, of float32 up to six times as long.
    assert wide["int8"] < wide["w4a8"] and 1.5 < wide["half"] / wide["int8"] < 2.5
    assert wide["half"] == wide["bf16"] and 3 < wide["fp32"] / wide["half"] < 8
    small = [costs.layers["y", format].seconds for format in ("fp32", *FORMATS)]
    assert max(small) < 2.5 * min(small)  # what it computes is next to nothing


def test_older_cards_are_slower_and_may_lack_products(made):
    (_, turing), (_, ampere) = of(made, "sm_75"), of(made, "sm_80")
    assert all(turing[format] > ampere[format] for format in turing)
    assert turing["bf16"] > 5 * turing["half"] and ampere["bf16"] == ampere["half"]


def test_what_a_log_has_timed_is_measured(made, tmp_path):
    row = ROWS[0].narrowed("sm_90")
    form = run_passes(made[0].module, form_passes(made[1]["int8"], made[0].layers))
    (schedule,) = (note.schedule for note, _ in predict_launches(form, row) if note.output == "r0")
    workload = Workload.from_key(schedule.workload, schedule.batch)
    log = write(tmp_path / "log.db", record(workload, row, schedule.knobs, 7.0, device="H100"))
    costs = gpu_costs(*made, row, log)
    assert costs.layers["r0", "int8"] == Seconds(7e-6, True) and costs.device == "H100"
    assert {key for key, cost in costs.layers.items() if cost.measured} == {("r0", "int8")}


def test_of_several_architectures_the_newest_counts(made):
    several = gpu_costs(*made, ROWS[0])
    assert several.layers == of(made, "sm_90")[0].layers
