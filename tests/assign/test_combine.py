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


def random_graph(rng: random.Random):
    """Convolutions, residual adds, concatenations and layers without weights, of what was made before."""

    def write(b, x):
        tensors = [x]
        for i in range(rng.randint(2, 9)):
            kind, t, other = rng.choice(KINDS), rng.choice(tensors[-3:]), rng.choice(tensors)
            wide = b.emit(op.concat([t, other], 1), f"both{i}") if kind == "concat" else t
            name = f"{kind}{i}"
            if kind in ("conv", "residual", "concat"):
                call = op.nn.conv2d(wide, weight(4, int(wide.ty.shape[1]), 1, 1, seed=rng.randint(0, 9)))
                tensors.append(b.emit(call, name))
                if kind == "residual":
                    tensors.append(b.emit(op.add(tensors[-1], other), f"sum{i}"))
            elif kind in ("add", "multiply"):
                tensors.append(b.emit(getattr(op, kind)(t, other), name))
            elif kind == "avg_pool2d":
                tensors.append(b.emit(op.nn.avg_pool2d(t, (3, 3), padding=(1, 1)), name))
            else:
                tensors.append(b.emit(op.cumsum(t, axis=1) if kind == "cumsum" else getattr(op, kind)(t), name))
        return [tensors[-1], *rng.choices(tensors[1:], k=rng.randint(0, 1))]

    return write


KINDS = ("conv", "conv", "conv", "residual", "concat", "tanh", "sigmoid", "avg_pool2d", "add", "multiply", "cumsum")


@pytest.mark.parametrize("seed", range(12))
def test_any_graph_in_any_mixture(seed):
    """The integer form exists; formats are those of planning with excluded layers, but for a layer here and there."""
    rng = random.Random(seed)
    mod = module(random_graph(rng), x=(1, 4, 5, 5))
    model, stats = quantized_modules.model_of(mod), quantized_modules.stats_of(mod)
    plan = qc.plan_uniform(model, stats)
    ties = find_ties(Structure(graph.read(mod)), {"int8": plan})
    floats = {layer for tie in ties if rng.random() < 0.5 for layer in tie.layers}
    combined, planned = mixed(model, plan, floats), qc.plan_uniform(model, stats, exclude=sorted(floats))
    quantized_modules.integer_of(mod, combined)
    for name, layer in planned.layers.items():
        if combined.layers[name].format != layer.format:  # it keeps a layer between floats that planning gives up
            assert layer.format == "fp32" and layer.why.endswith(("which is float32", "wanted as float32"))
    assert same(mixed(model, plan, set()), plan)


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
