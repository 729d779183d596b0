"""Int4 weights by groups: from a plan to codes, from codes to a layer, and what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from qcompile import graph, ops
from qcompile.errors import QCompileError
from qcompile.passes.group_weights import quantize_groups, split_groups
from qcompile.plan import QuantPlan
from tests.passes.float_modules import module, values, weight
from tests.passes.quantized_modules import (
    assert_bodies_agree,
    assert_within_a_step,
    feeds_of,
    integer_of,
    kinds,
    plan_of,
    qdq_of,
    run,
    specs_of,
)

op = relax.op


def two_products(b, x):
    y = b.emit(op.matmul(x, weight(32, 16)), "m")
    y = b.emit(op.nn.relu(b.emit(op.add(y, weight(16)), "biased")), "y")
    return [b.emit(op.matmul(y, weight(16, 5, seed=1)), "z")]


def before():
    return module(two_products, x=(6, 32))


def grouped(mod, group=8):
    return plan_of(mod, precision="w4a8", group_size=group)


def changed(plan, name, **fields):
    return QuantPlan({**plan.tensors, name: replace(plan.tensors[name], **fields)}, plan.layers)


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 8]))
def test_codes_and_scales_are_found_again(seed, spread):
    """The parts may differ (4 * 2 is 2 * 4), their product does not."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-8 // spread, 7 // spread + 1, (3, 4, 8))
    scales = rng.integers(1, 256, (3, 4, 1))
    product = (codes * scales).reshape(3, 32).astype(np.int16)
    weight, group_scale = split_groups(product, 8)
    assert weight.dtype == np.int8 and weight.min() >= -8 and weight.max() <= 7
    assert group_scale.dtype == np.uint8 and group_scale.min() >= 1
    np.testing.assert_array_equal(weight * np.repeat(group_scale, 8, axis=1).astype(np.int16), product)


@pytest.mark.parametrize("codes", [[9, 1, 0], [-9, 8, 0], [8, 7, 0], [256, 257, 0], [2041, 0, 0]], ids=str)
def test_what_is_no_int4_times_a_byte_is_refused(codes):
    assert split_groups(np.array([codes], np.int16), 3) == (
        "the weight's codes are not int4 times a scale up to 255 for each group of 3"
    )


def test_the_real_weight_is_near():
    mod, group = before(), 8
    plan = grouped(mod, group).tensors["y.weight"]
    real = values(32, 16)
    steps = np.frombuffer(plan.group_scale, np.uint8).reshape(16, 4)
    constant = quantize_groups(real, np.array(plan.scale, np.float32), steps, group)
    assert constant.codes.dtype == np.int16 and constant.codes.shape == (32, 16)
    error = np.abs(constant.codes * constant.scale - real).reshape(4, 8, 16).max(axis=1).T
    assert (error <= 0.25 * np.abs(real).reshape(4, 8, 16).max(axis=1).T).all()


def test_the_qdq_form_has_int16_weights():
    mod = qdq_of(before(), precision="w4a8", group_size=8)
    value = next(value for var, value in graph.read(mod).bindings if var.name == "y.weight")
    assert str(value.args[0].ty.dtype) == "int16"
    relax.analysis.well_formed(mod)


def test_a_layer_with_groups_is_one_composite():
    mod = before()
    plan = grouped(mod)
    result = integer_of(mod, plan)
    assert kinds(result) == ["quantize", "DENSE", "DENSE"]
    assert [spec.group for spec in specs_of(result)] == [8, 8]
    call = next(value for var, value in graph.read(result).bindings if var.name == "y")
    assert [(str(a.ty.dtype), tuple(map(int, a.ty.shape))) for a in call.args[1:]] == [
        ("int8", (16, 32)),
        ("int32", (16,)),
        ("float32", (16,)),
        ("uint8", (16, 4)),
    ]
    assert_within_a_step(mod, plan, ["y"])
    assert_bodies_agree(result, run(result, feeds_of(mod), capture=True))


def test_activations_and_other_layers_are_those_of_int8():
    mod = before()
    names = ("x", "y")
    assert [grouped(mod).tensors[n] for n in names] == [plan_of(mod).tensors[n] for n in names]


def test_a_residual_comes_behind_the_scales():
    def write(b, x, other):
        y = b.emit(op.add(b.emit(op.matmul(x, weight(16, 8)), "m"), other), "y")
        return [b.emit(op.matmul(y, weight(8, 3)), "z")]

    mod = module(write, x=(5, 16), other=(5, 8))
    plan = grouped(mod)
    result = integer_of(mod, plan)
    spec = next(s for s in specs_of(result) if isinstance(s, ops.Dense))
    assert spec.group == 8 and spec.epilogue.residual is not None
    assert_within_a_step(mod, plan, ["y"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_scale": b"\x01"}, "do not fit this weight; give 16 x 4 of them, each from 1 to 255"),
        ({"group_scale": bytes(64)}, "do not fit this weight; give 16 x 4 of them, each from 1 to 255"),
        ({"group": 12}, "no weights by groups here: groups of 12 weights are not a multiple of 8; make the layer int8"),
        ({"group": 24}, "no weights by groups here: 32 inputs are not a multiple of the group size 24"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(fields, message):
    mod = before()
    with pytest.raises(QCompileError, match="y.weight") as error:
        integer_of(mod, changed(grouped(mod), "y.weight", **fields))
    assert message in str(error.value)


def test_an_unknown_format_is_refused():
    mod = before()
    plan = grouped(mod)
    layers = {**plan.layers, "y": replace(plan.layers["y"], format="w4a9")}
    with pytest.raises(QCompileError, match="unknown format 'w4a9'; did you mean 'w4a8'"):
        integer_of(mod, QuantPlan(plan.tensors, layers))


def test_weights_of_another_layer_stay_in_float(caplog):
    """A plan with int16 weights and no groups of them has no such layer."""
    mod = before()
    plan = grouped(mod)
    qdq = qdq_of(mod, precision="w4a8", group_size=8)
    from qcompile.passes.fold_weighted import fold_weighted

    with caplog.at_level(logging.DEBUG):
        result = fold_weighted()(qdq)
    assert "y: the weight is not int8" in caplog.text and "DENSE" not in kinds(result)
    assert plan.layers["y"].format == "w4a8"
