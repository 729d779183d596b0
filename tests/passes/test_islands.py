from __future__ import annotations

from dataclasses import replace

from tvm import relax

from qcompile.passes.islands import Island, islands
from qcompile.plan import LayerPlan
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import integer_of, plan_of

op = relax.op


def network(b, x):
    n = b.emit(op.nn.layer_norm(x, weight(6), weight(6), axes=[-1]), "n")
    flat = b.emit(op.reshape(n, (1, 12)), "flat")
    y = b.emit(op.matmul(flat, weight(12, 6)), "y")
    return [b.emit(op.matmul(y, weight(6, 3)), "z"), b.emit(op.nn.softmax(b.emit(op.exp(n), "e")), "s")]


def test_what_computes_in_float_is_listed_in_order():
    mod = module(network, x=(2, 6))
    plan = plan_of(mod, exclude=["y"])
    assert islands(integer_of(mod, plan), plan, {"n": "norm", "y": "dense"}) == (
        Island("n", "nn.layer_norm", "norm", "no integer form of nn.layer_norm"),
        Island("y", "dense", "dense", "excluded as y"),
        Island("e", "exp", "e", "reads n, which is float32"),
        Island("s", "nn.softmax", "s", "its result is wanted as float32"),
    )


def test_a_layer_that_was_planned_and_not_folded_says_so():
    mod = module(lambda b, x: [b.emit(op.exp(x), "e")], x=(2, 6))
    plan = replace(plan_of(mod), layers={"e": LayerPlan("int8")})
    assert [island.reason for island in islands(mod, plan)] == ["planned as int8, but no pass folds it"]
