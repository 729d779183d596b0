"""Every format beside others in one simulation: the outputs of builds, to the bit, and the bytes of their weights."""

from __future__ import annotations

import numpy as np
import pytest

import qcompile as qc
from qcompile.compile import runnable
from qcompile.formats import FORMATS
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.simulate.simulate import simulate
from qcompile.targets.select import select_target
from tests.building import samples
from tests.e2e.test_bf16 import kinds_of_convolutions
from tests.e2e.test_w4a8 import block, convolutions

CASES = {  # model, formats, and the shares of fp32's bytes that a layer's weights take in each, biases included
    "convolutions": (
        kinds_of_convolutions,
        {"bf16": (0.5, 0.8), "int8": (0.25, 0.8), "half": (0.5, 0.8), "fp8_e4m3": (0.25, 0.8)},
    ),
    "weights alone": (kinds_of_convolutions, {"w8": (0.25, 0.8), "fp16": (0.5, 0.8), "fp8_e5m2": (0.25, 0.8)}),
    "groups": (convolutions, {"w4a8": (0.13, 0.4), "w4": (0.13, 0.2), "bf16": (0.5, 0.6)}),
    "block of a transformer": (block, {"w8": (0.25, 0.3), "w4": (0.13, 0.2), "bf16": (0.5, 0.55)}),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_builds(name):
    """Of builds as they are made: where tensors between layers lie, and in which type, is their own choice."""
    made, formats = CASES[name]
    imported = qc.import_onnx(made())
    feeds = samples(imported, 2)
    stats = qc.calibrate(imported, feeds)
    simulation = simulate(imported, {each: qc.plan_uniform(imported, stats, each) for each in formats})
    rng, layers = np.random.default_rng(0), simulation.layers
    mixed = [{n: str(rng.choice(simulation.formats(n))) for n in layers} for _ in range(2)]
    first = next(iter(formats))
    for chosen in ({n: first for n in layers if first in simulation.formats(n)}, *mixed):
        form = run_passes(imported.module, form_passes(simulation.plan(chosen), imported.layers))
        (want,) = runnable(form, select_target("native"))(feeds[0]).values()
        (got,) = simulation.run(feeds[0], chosen).values()
        np.testing.assert_array_equal(got, want, err_msg=str(chosen))
    for format, (low, high) in formats.items():
        taken = [n for n in layers if format in simulation.formats(n)]
        taken = [n for n in taken if simulation.plan({n: format}).layers[n].format == format]
        assert taken
        for layer in taken:
            if simulation.weights(layer):
                share = simulation.weight_bytes(layer, format) / simulation.weight_bytes(layer, "fp32")
                assert low <= share <= high, (layer, format, share)


def test_every_format_is_there():
    assert {name for _, formats in CASES.values() for name in formats} | {"fp32"} == set(FORMATS)
