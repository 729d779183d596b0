from __future__ import annotations

import pytest
from tvm import relax

from qcompile.passes.hoist_scales import hoist_scales
from tests.passes.float_modules import (
    check_same_results,
    check_unchanged,
    const,
    module,
    names,
    operators,
    values,
    weight,
)

op = relax.op


def attention(b, x, k, scale, bias=True):
    q = b.emit(op.matmul(x, weight(8, 8)), "q~matmul")
    q = b.emit(op.add(q, const(values(8))), "q") if bias else q
    heads = b.emit(op.permute_dims(b.emit(op.reshape(q, (2, 3, 4, 2)), "split"), (0, 2, 1, 3)), "heads")
    return heads, b.emit(scale(b.emit(op.matmul(heads, k), "scores")), "scaled")


SCALES = {"divide": lambda s: op.divide(s, const(1.5)), "multiply": lambda s: op.multiply(s, const([[0.7]]))}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_scale_of_attention_becomes_part_of_the_query(name, bias):
    mod = module(lambda b, x, k: [attention(b, x, k, SCALES[name], bias)[1]], x=(2, 3, 8), k=(2, 4, 2, 5))
    result = hoist_scales(mod)
    assert operators(result) == [*(["matmul", "add"] if bias else ["matmul"]), "reshape", "permute_dims", "matmul"]
    assert names(result)[-3:] == ["split", "heads", "scaled"]
    check_same_results(mod, result)


def refused(caplog, reason, write):
    with caplog.at_level("DEBUG", "qcompile.passes"):
        check_unchanged(hoist_scales, module(write, x=(2, 3, 8), k=(2, 4, 2, 5)))
    assert (f"scaled: {reason}" if reason else "") in caplog.text


def test_a_tensor_in_between_with_another_use_is_left(caplog):
    def write(b, x, k):
        heads, scaled = attention(b, x, k, SCALES["multiply"])
        return [scaled, heads]

    refused(caplog, "a tensor between the layer and the scale has another use", write)


def test_a_layer_with_another_use_is_left(caplog):
    def write(b, x, k):
        q = b.emit(op.matmul(x, weight(8, 8)), "q")
        return [b.emit(op.multiply(b.emit(op.reshape(q, (6, 8)), "flat"), const(2.0)), "scaled"), q]

    refused(caplog, "the layer's result has another use", write)


LEFT = {
    "a scale by channel": lambda b, x, k: op.multiply(b.emit(op.reshape(x, (6, 8)), "flat"), const(values(8))),
    "no layer": lambda b, x, k: op.multiply(b.emit(op.reshape(x, (6, 8)), "flat"), const(2.0)),
    "zero": lambda b, x, k: op.divide(attention(b, x, k, SCALES["divide"])[0], const(0.0)),
    "a constant that adds axes": lambda b, x, k: op.multiply(
        b.emit(op.reshape(b.emit(op.matmul(x, weight(8, 8)), "q"), (6, 8)), "flat"), const([[[2.0]]])
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_left(name):
    def write(b, x, k):
        return [b.emit(LEFT[name](b, x, k), "y")]

    check_unchanged(hoist_scales, module(write, x=(2, 3, 8), k=(2, 4, 2, 5)))
