"""Real models: any choice of formats gives the bits of a build (marked bench)."""

from __future__ import annotations

import numpy as np
import pytest

import qcompile as qc
from qcompile.analyze.analyze import analyze
from qcompile.simulate.simulate import simulate
from tests.e2e.bench_set import CNNS, TRANSFORMERS, model_path, plan_of, samples
from tests.simulate.agreement import assert_agree

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("name", (*CNNS, *TRANSFORMERS))
def test_any_formats(name):
    imported = qc.import_onnx(model_path(name))
    feeds = samples(name, "calib")[0][:16]
    simulation = simulate(imported, plan_of(imported, feeds))
    rng = np.random.default_rng(0)
    for share in (0.0, 0.5, 1.0):
        formats = {layer: "int8" for layer in simulation.layers if rng.random() < share}
        assert_agree(imported, simulation, formats, feeds[0], islands=name == "nlp_minilm_l6")


def test_losses_of_a_network_add_up_within_an_order():
    """What the groups cost alone says something about what they cost together."""
    imported = qc.import_onnx(model_path("imagenet_mnv1_025"))
    feeds = samples("imagenet_mnv1_025", "calib")[0]
    table = analyze(imported, plan_of(imported, feeds[:32]), feeds[:32], "native", tuning_records="none")
    alone = sum(group.entries["int8"].alone for group in table.groups)
    assert table.metric == "kl" and 0.2 < table.uniform["int8"].loss / alone < 5
