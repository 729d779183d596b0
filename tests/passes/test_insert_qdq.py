from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.passes.quantized import affine_of, constant_of
from qcompile.plan import LayerPlan
from qcompile.reference.interpreter import run
from tests.passes.float_modules import const, module, names, values, weight
from tests.passes.quantized_modules import feeds_of, kinds, plan_of, qdq_of

op = relax.op


def conv_relu_conv(b, x):
    c = b.emit(op.nn.conv2d(x, weight(6, 4, 3, 3)), "c")
    y = b.emit(op.add(c, weight(1, 6, 1, 1)), "y")
    r = b.emit(op.nn.relu(y), "r")
    return [b.emit(op.nn.conv2d(r, weight(2, 6, 1, 1)), "out")]


def test_quantize_and_dequantize_stand_around_every_layer():
    mod = module(conv_relu_conv, x=(1, 4, 5, 5))
    result = qdq_of(mod)
    relax.analysis.well_formed(result)
    expected = ["x.q", "x.dq", "r.weight", "r.bias", "c", "y", "r", "r.q", "r.dq", "out.weight", "out"]
    assert names(result) == expected
    reads = {v.name: [r.name for r in graph.reads(value)] for v, value in graph.read(result).bindings}
    assert (
        reads["c"] == ["x.dq", "r.weight"] and reads["y"] == ["c", "r.bias"] and reads["out"] == ["r.dq", "out.weight"]
    )


def test_constants_are_the_codes_of_the_plan():
    mod = module(conv_relu_conv, x=(1, 4, 5, 5))
    plan = plan_of(mod)
    definitions = {v.name: value for v, value in graph.read(insert_qdq(plan)(mod)).bindings}
    kernel, bias = constant_of(definitions["r.weight"]), constant_of(definitions["r.bias"])
    scale = np.array(plan.tensors["r.weight"].scale, np.float32).reshape(-1, 1, 1, 1)
    assert kernel.codes.dtype == np.int8 and np.abs(kernel.codes).max(axis=(1, 2, 3)).tolist() == [127] * 6
    assert np.abs(kernel.codes * scale - values(6, 4, 3, 3)).max() <= 0.501 * scale.max()
    assert bias.codes.dtype == np.int32
    np.testing.assert_allclose(bias.codes.reshape(-1) * bias.scale, values(1, 6, 1, 1).reshape(-1), atol=1e-4)
    assert affine_of(definitions["x.q"]) == plan.tensors["x"].affine


def test_the_qdq_form_is_close_to_the_float_form():
    mod = module(conv_relu_conv, x=(2, 4, 5, 5))
    feeds = feeds_of(mod)
    expected, actual = run(mod, feeds)["out"], run(qdq_of(mod), feeds)["out"]
    assert 0 < np.abs(actual - expected).max() < 0.03 * np.abs(expected).max()


def test_an_empty_plan_changes_nothing():
    mod = module(conv_relu_conv, x=(1, 4, 5, 5))
    assert names(insert_qdq(plan_of(mod, precision="fp32"))(mod)) == names(mod)


def test_float_operators_read_what_is_stored():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        return [
            b.emit(op.nn.conv2d(c, weight(4, 4, 1, 1)), "y"),
            b.emit(op.nn.softmax(c), "s"),
            b.emit(op.exp(x), "e"),
            c,
        ]

    result = graph.read(qdq_of(module(write, x=(1, 4, 5, 5))))
    reads = {v.name: [r.name for r in graph.reads(value)] for v, value in result.bindings}
    assert reads["s"] == ["c.dq"]  # an int8 layer's result exists as codes
    assert reads["e"] == ["x"]  # an input exists as float32
    assert result.outputs[3].name == "c.dq"


def test_integer_inputs_and_outputs():
    mod = module(conv_relu_conv, x=(1, 4, 5, 5))
    plan = plan_of(mod, integer_inputs=["x"], integer_outputs=["out"])
    main = graph.read(insert_qdq(plan)(mod))
    assert main.params[0].name == "x" and str(main.params[0].ty.dtype) == "uint8"
    assert main.outputs[0].name == "out.q" and str(main.outputs[0].ty.dtype) == "uint8"


def test_moved_codes_share_their_source():
    def write(b, x):
        parts = b.emit(op.split(x, 2, axis=1), "parts")
        first, second = (b.emit(relax.TupleGetItem(parts, i), f"part{i}") for i in range(2))
        flat = b.emit(op.reshape(first, (1, 50)), "flat")
        return [b.emit(op.matmul(flat, weight(50, 3)), "y"), b.emit(op.exp(second), "e")]

    mod = module(write, x=(1, 4, 5, 5))
    plan = plan_of(mod)
    assert plan.tensors["flat"].affine == plan.tensors["part0"].affine == plan.tensors["x"].affine
    assert plan.tensors["flat"].kind == "shared" and plan.tensors["flat"].source == "x"
    assert kinds(insert_qdq(plan)(mod)).count("quantize") == 3  # x, part0, flat; nobody wants part1 as codes


def test_a_constant_operand_becomes_codes():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        a = b.emit(op.add(c, weight(1, 1, 5, 5)), "a")
        return [b.emit(op.nn.conv2d(a, weight(4, 4, 1, 1)), "y")]

    mod = module(write, x=(1, 4, 5, 5))
    plan = plan_of(mod)
    codes = constant_of({v.name: e for v, e in graph.read(insert_qdq(plan)(mod)).bindings}["a.weight"]).codes
    assert codes.dtype == np.uint8 and codes.shape == (1, 1, 5, 5)


def test_a_plan_edited_by_hand_is_carried_out():
    mod = module(conv_relu_conv, x=(1, 4, 5, 5))
    plan = plan_of(mod)
    coarse = replace(plan.tensors["x"], scale=(0.5,), zero_point=(7,))
    edited = replace(plan, tensors={**plan.tensors, "x": coarse})
    assert affine_of(graph.read(insert_qdq(edited)(mod)).bindings[0][1]) == coarse.affine


def test_scalar_constants_stay():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        h = b.emit(op.multiply(c, const(0.5)), "h")
        return [b.emit(op.nn.conv2d(h, weight(4, 4, 1, 1)), "y")]

    result = qdq_of(module(write, x=(1, 4, 5, 5)))
    assert "h.weight" not in names(result) and "h.q" in names(result)


def edited(plan, **changes):
    return replace(plan, **{field: {**getattr(plan, field), **new} for field, new in changes.items()})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: edited(p, layers={"R": LayerPlan("int8")}), "R: the plan has a layer that the model lacks"),
        (lambda p: replace(p, tensors={"x": p.tensors["x"]}), "r.weight: the plan has no scale of this tensor"),
        (
            lambda p: edited(p, tensors={"r.weight": replace(p.tensors["r.weight"], scale=(1.0, 2.0))}),
            "r.weight: the plan has 2 scales of this weight; give one, or 6",
        ),
    ],
)
def test_a_plan_that_does_not_fit(make, message):
    mod = module(conv_relu_conv, x=(1, 4, 5, 5))
    with pytest.raises(QCompileError) as error:
        insert_qdq(make(plan_of(mod)))(mod)
    assert message in str(error.value)


def test_islands_with_codes_read_float32():
    def write(b, x):
        first = b.emit(op.nn.layer_norm(x, weight(6), weight(6), axes=[-1]), "first")
        second = b.emit(op.nn.layer_norm(first, weight(6), weight(6), axes=[-1]), "second")
        parts = b.emit(op.split(first, 2, axis=0), "parts")
        half = b.emit(relax.TupleGetItem(parts, 0), "half")
        return [
            *(b.emit(op.matmul(t, weight(6, 3)), f"{t.name} y") for t in (first, second)),
            b.emit(op.exp(half), "e"),
        ]

    result = graph.read(qdq_of(module(write, x=(2, 6))))
    reads = {v.name: [r.name for r in graph.reads(value)] for v, value in result.bindings}
    assert reads["second"] == reads["parts"] == ["first"] and reads["first y"][0] == "first.dq"
