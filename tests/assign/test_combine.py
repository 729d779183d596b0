"""Plans put together from uniform ones are those that planning from statistics gives, and they can be built."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tvm import relax

import qcompile as qc
from qcompile import graph
from qcompile.assign.combine import combine
from qcompile.assign.flow import find_passive, find_reads, find_residuals
from qcompile.assign.structure import Structure
from qcompile.assign.ties import find_ties
from qcompile.model import Model
from qcompile.plan import LayerPlan, QuantPlan
from tests.building import cnn, samples
from tests.passes import quantized_modules
from tests.passes.float_modules import module, weight

op = relax.op


def mixed(model: Model, plan: QuantPlan, floats: set[str]) -> QuantPlan:
    structure, plans = Structure(graph.read(model.module)), {"int8": plan}
    layers = [layer for tie in find_ties(structure, plans) for layer in tie.layers]
    chosen = {name: LayerPlan("fp32" if name in floats else "int8") for name in layers}
    reads, residuals = find_reads(structure, plans), find_residuals(structure, plans)
    return combine(plans, chosen, reads, residuals, find_passive(structure))


def same(plan: QuantPlan, other: QuantPlan) -> bool:
    formats = [{name: layer.format for name, layer in p.layers.items()} for p in (plan, other)]
    return formats[0] == formats[1] and dict(plan.tensors) == dict(other.tensors)


def residuals_and_functions(b, x):
    def conv(x, name, seed):
        return b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1, seed=seed)), name)

    first = b.emit(op.tanh(conv(x, "c0", 0)), "first")
    second = b.emit(op.add(conv(first, "c1", 1), first), "second")
    third = b.emit(op.nn.gelu(conv(second, "c2", 2)), "third")
    return [conv(b.emit(op.mean(third, [2, 3], keepdims=True), "mean"), "last", 3), conv(first, "other", 4)]


@pytest.mark.parametrize("seed", range(8))
def test_same_as_planning_with_excluded_layers(seed):
    mod = module(residuals_and_functions, x=(1, 4, 6, 6))
    model, stats = quantized_modules.model_of(mod), quantized_modules.stats_of(mod)
    plan = qc.plan_uniform(model, stats)
    ties = find_ties(Structure(graph.read(mod)), {"int8": plan})
    rng = random.Random(seed)
    floats = {layer for tie in ties if rng.random() < 0.5 for layer in tie.layers}
    assert same(mixed(model, plan, floats), qc.plan_uniform(model, stats, exclude=sorted(floats)))


def test_all_or_nothing():
    mod = module(residuals_and_functions, x=(1, 4, 6, 6))
    model, plan = quantized_modules.model_of(mod), quantized_modules.plan_of(mod)
    assert same(mixed(model, plan, set()), plan)
    nothing = mixed(model, plan, set(plan.layers))
    assert not nothing.tensors and {layer.format for layer in nothing.layers.values()} == {"fp32"}


def test_reasons_are_kept():
    plan = QuantPlan(layers={"a": LayerPlan("int8"), "b": LayerPlan("fp32", "no integer form")})
    chosen = {"a": LayerPlan("int8", "saves time"), "b": LayerPlan("int8", "hoped for")}
    combined = combine({"int8": plan}, chosen, {}, {})
    assert dict(combined.layers) == {"a": LayerPlan("int8", "saves time"), "b": LayerPlan("fp32", "no integer form")}


def test_a_mixed_plan_can_be_built(tmp_path):
    model = qc.import_onnx(cnn())
    plan = qc.plan_uniform(model, qc.calibrate(model, samples(model)))
    artifact = qc.build(model, mixed(model, plan, {"y"}), target="x86-avx2", out=tmp_path / "out")
    formats = {layer.name: layer.format for layer in artifact.manifest.layers}
    assert formats["conv0"] == "int8" and formats["classes"] == "fp32"


def test_formats_from_several_plans():
    plan = quantized_modules.plan_of(module(residuals_and_functions, x=(1, 4, 6, 6)))
    narrow = replace(plan, layers={name: LayerPlan("w4a8") for name in plan.layers})
    chosen = {"other": LayerPlan("w4a8"), "last": LayerPlan("int8")}
    plans = {"int8": plan, "w4a8": narrow}
    combined = combine(plans, chosen, {"other": ("first",), "last": ("last.weight",)}, {})
    assert set(combined.tensors) == {"first", "last.weight"} and combined.layers["other"].format == "w4a8"


def test_a_layer_without_weights_takes_its_scales_from_the_plan_of_its_group():
    plan = quantized_modules.plan_of(module(residuals_and_functions, x=(1, 4, 6, 6)))
    narrow = replace(plan, layers={**plan.layers, "other": LayerPlan("w4a8")})
    chosen = dict.fromkeys(("other", "first"), LayerPlan("w4a8", "small"))
    combined = combine({"w4a8": narrow}, chosen, {"other": ("first",), "first": ("c0",)}, {}, ("first",))
    assert combined.layers["first"] == LayerPlan("int8", "small") and set(combined.tensors) == {"first", "c0"}
