"""Which layers take one format together, and why, on small graphs and imported models."""

from __future__ import annotations

import numpy as np
from tvm import relax

import qcompile as qc
from qcompile import graph
from qcompile.assign.structure import Structure
from qcompile.assign.ties import Tie, find_ties
from tests.building import cnn, plan_of, with_island
from tests.passes import quantized_modules
from tests.passes.float_modules import const, module, values, weight

op = relax.op
SHAPE = (1, 4, 6, 6)


def conv(b, x, name, seed=0):
    return b.emit(op.nn.conv2d(x, weight(4, int(x.ty.shape[1]), 1, 1, seed=seed), padding=(0, 0)), name)


def ties_of(write, **inputs) -> list[Tie]:
    mod = module(write, **(inputs or {"x": SHAPE}))
    return find_ties(Structure(graph.read(mod)), {"int8": quantized_modules.plan_of(mod)})


def test_layers_in_a_row_are_free():
    assert ties_of(lambda b, x: [conv(b, conv(b, x, "a"), "b", 1)]) == [Tie("a", ("a",)), Tie("b", ("b",))]


def test_operands_of_an_integer_residual_add():
    def write(b, x):
        first = conv(b, x, "first")
        return [conv(b, b.emit(op.add(conv(b, first, "c", 1), first), "sum"), "out", 2)]

    assert ties_of(write) == [Tie("first", ("first", "sum"), "sum adds first"), Tie("out", ("out",))]


def test_a_residual_in_float32_ties_nothing():
    def write(b, x):
        first = conv(b, x, "first")
        return [b.emit(op.add(conv(b, first, "c", 1), first), "sum")]

    assert [tie.layers for tie in ties_of(write)] == [("first",), ("sum",)]


def test_layers_without_weights_follow_what_they_read():
    def write(b, x):
        both = b.emit(op.concat([conv(b, x, "a"), b.emit(op.tanh(conv(b, x, "b", 1)), "t")], 1), "both")
        return [conv(b, both, "out", 2)]

    first, last = ties_of(write)
    assert first == Tie("a", ("a", "b", "t", "both"), "both concatenates a; t follows b; both concatenates t")
    assert last.layers == ("out",)


def test_shared_weights():
    one = const(values(4, 4, 1, 1))

    def write(b, x):
        a = b.emit(op.nn.conv2d(x, one), "a")
        return [b.emit(op.nn.conv2d(conv(b, a, "m", 1), one), "z")]

    assert ties_of(write) == [Tie("a", ("a", "z"), "z has the weight of a"), Tie("m", ("m",))]


def test_queries_keys_and_values_are_one():
    def write(b, x):
        q, k, v = (b.emit(op.matmul(x, const(values(8, 8, seed=i))), name) for i, name in enumerate("qkv"))
        scores = b.emit(op.matmul(q, b.emit(op.permute_dims(k), "turned")), "scores")
        attention = b.emit(op.nn.softmax(scores), "attention")
        return [b.emit(op.matmul(b.emit(op.matmul(attention, v), "mixed"), const(values(8, 8, seed=5))), "out")]

    first, last = ties_of(write, x=(6, 8))
    assert first == Tie("q", ("q", "k", "v"), "q, k, v are products of one tensor, x") and last.layers == ("out",)


def test_an_imported_model():
    model = qc.import_onnx(cnn())
    ties = find_ties(Structure(graph.read(model.module)), {"int8": plan_of(model)})
    assert [tie.layers for tie in ties] == [("r0", "a", "p"), ("y",)]
    assert ties[0].why == "a adds r0; p follows a"


def test_what_is_float_in_every_plan_is_in_no_tie():
    model = qc.import_onnx(with_island())
    structure = Structure(graph.read(model.module))
    assert [tie.layers for tie in find_ties(structure, {"int8": plan_of(model)})] == [("m",), ("y",)]
    assert find_ties(structure, {"fp32": qc.plan_uniform(model, None, "fp32")}) == []


def test_long_reasons_are_cut():
    def write(b, x):
        parts = [conv(b, x, f"c{i}", i) for i in range(6)]
        return [conv(b, b.emit(op.concat(parts, 1), "all"), "out", 9)]

    assert ties_of(write)[0].why.endswith("all concatenates c3; ... 6 in all")
    assert np.all([name in ties_of(write)[0].layers for name in ("c0", "c5", "all")])
