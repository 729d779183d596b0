"""Int4 weights on real transformers: the oracle's bits, accuracy, bits a weight (marked bench)."""

from __future__ import annotations

import pytest

import qcompile as qc
from qcompile import graph
from qcompile.passes.base import array
from qcompile.passes.chain import find_chains
from qcompile.targets.select import select_target
from tests.e2e import test_bench_models as int8
from tests.e2e.bench_set import TRANSFORMERS, model_path, samples, score

pytestmark = pytest.mark.bench

PERPLEXITY, SPEARMAN = 4.5939, 0.82032  # of fp32 in ONNX Runtime


@pytest.fixture(scope="module", params=TRANSFORMERS)
def planned(request):
    """(name, model, plan with default options)."""
    name = request.param
    model = qc.import_onnx(model_path(name))
    stats = qc.calibrate(model, samples(name, "calib")[0])
    return name, model, qc.plan_uniform(model, stats, "w4a8", select_target("native"))


def test_integer_regions_equal_the_oracle(planned):
    int8.test_integer_regions_equal_the_oracle(planned)


def test_every_product_with_a_constant_is_w4a8(planned):
    _, model, plan = planned
    layers = qc.build(model, plan).manifest.layers
    assert {layer.format for layer in layers if layer.macs} == {"w4a8"}


def test_accuracy(planned):
    """At most 2 % worse perplexity, at most 0.01 Spearman lost."""
    name, model, plan = planned
    feeds, extras = samples(name, "eval")
    runner = qc.load(qc.build(model, plan).path)
    found = score(name, lambda f: next(iter(runner.run(f).values())), feeds, extras)
    assert found <= 1.02 * PERPLEXITY if name == "lm_tinygpt" else found >= SPEARMAN - 0.01


def test_at_most_four_and_a_half_bits_a_weight(planned):
    """Codes and scales of groups of all weights and tables, whatever their format."""
    _, model, plan = planned
    bits = elements = 0
    for chain in find_chains(graph.read(model.module)):
        for what, constant in (("weight", chain.weight), ("bias", chain.bias if chain.kind == "gather" else None)):
            tensor = plan.tensors.get(f"{chain.name}.{what}")
            if constant is None or tensor is None:
                continue
            size = array(constant).size
            elements += size
            bits += size * (4 if tensor.dtype == "int4" else 8) + 8 * len(tensor.group_scale)
    assert elements > 500_000 and bits <= 4.5 * elements
