from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile import graph
from qcompile.passes.chain import find_chains
from tests.passes.float_modules import const, module, weight

op = relax.op


def found(write, **inputs):
    return {c.name: c for c in find_chains(graph.read(module(write, **inputs)))}


def members(chain):
    return [v.name for v in chain.members]


def test_a_convolution_takes_bias_residual_and_activation():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        y = b.emit(op.add(c, weight(1, 4, 1, 1)), "y")
        r = b.emit(op.add(y, x), "r")
        return [b.emit(op.clip(r, 0, 6), "z")]

    chain = found(write, x=(1, 4, 5, 5))["z"]
    assert (chain.kind, members(chain), chain.clip) == ("conv", ["c", "y", "r", "z"], (0, 6))
    assert chain.residual.name == "x" and chain.bias is not None


def test_a_result_that_others_read_ends_the_chain():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        return [b.emit(op.nn.relu(c), "y"), b.emit(op.add(c, x), "z")]

    chains = found(write, x=(1, 4, 5, 5))
    assert {name: members(c) for name, c in chains.items()} == {"c": ["c"], "y": ["y"], "z": ["z"]}


def test_an_output_ends_the_chain():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        return [c, b.emit(op.nn.relu(c), "y")]

    assert members(found(write, x=(1, 4, 5, 5))["c"]) == ["c"]


def test_the_later_of_two_layers_takes_the_sum():
    def write(b, x):
        first = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "first")
        second = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1, seed=1)), "second")
        return [b.emit(op.add(second, first), "y")]

    chains = found(write, x=(1, 4, 5, 5))
    assert members(chains["y"]) == ["second", "y"] and chains["y"].residual.name == "first"
    assert members(chains["first"]) == ["first"]


def test_a_residual_that_broadcasts_is_a_layer_of_its_own():
    def write(b, x, s):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        return [b.emit(op.add(c, s), "y")]

    chains = found(write, x=(1, 4, 5, 5), s=(1, 4, 1, 1))
    assert chains["y"].kind == "binary" and members(chains["c"]) == ["c"]


def test_a_result_added_to_itself_is_no_residual():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        return [b.emit(op.add(c, c), "y")]

    assert members(found(write, x=(1, 4, 5, 5))["c"]) == ["c"]


def test_a_constant_that_is_no_bias_stays_outside():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        return [b.emit(op.add(c, weight(1, 1, 5, 5)), "y")]

    assert members(found(write, x=(1, 4, 5, 5))["c"]) == ["c"]


def test_dense_and_scale():
    def write(b, x, i):
        d = b.emit(op.matmul(x, weight(6, 3)), "d")
        s = b.emit(op.multiply(i, weight(1, 3, 1, 1)), "s")
        return [b.emit(op.add(d, weight(3)), "y"), b.emit(op.add(s, weight(3, 1, 1)), "t")]

    chains = found(write, x=(2, 6), i=(1, 3, 4, 4))
    assert {c.kind: members(c) for c in chains.values()} == {"dense": ["d", "y"], "scale": ["s", "t"]}


def test_a_scale_that_makes_channels_is_no_layer_of_that_kind():
    chains = found(lambda b, x: [b.emit(op.multiply(x, weight(1, 3, 1, 1)), "y")], x=(1, 1, 4, 4))
    assert chains["y"].kind == "binary"


def test_functions_of_one_tensor_are_trees():
    def write(b, x):
        shifted = b.emit(op.add(x, const(3)), "shifted")
        bounded = b.emit(op.clip(shifted, 0, 6), "bounded")
        product = b.emit(op.multiply(x, bounded), "product")
        return [b.emit(op.multiply(product, const(1 / 6)), "y")]

    chain = found(write, x=(2, 6))["y"]
    assert chain.kind == "function" and chain.inputs[0].name == "x"
    assert members(chain) == ["shifted", "bounded", "product", "y"]


def test_a_tree_stops_where_another_operator_reads_it():
    def write(b, x):
        s = b.emit(op.sigmoid(x), "s")
        return [b.emit(op.multiply(x, s), "y"), b.emit(op.nn.softmax(s), "z")]

    chains = found(write, x=(2, 6))
    assert {name: c.kind for name, c in chains.items()} == {"s": "function", "y": "binary", "z": "softmax"}


def test_a_sum_of_two_tensors_keeps_its_relu():
    def write(b, x, z):
        s = b.emit(op.add(x, z), "s")
        return [b.emit(op.nn.relu(s), "y")]

    chain = found(write, x=(2, 6), z=(2, 6))["y"]
    assert chain.kind == "binary" and chain.clip == (0, np.inf)
