from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile import graph
from qcompile.calibrate.layer_inputs import from_rows, layer_inputs, weight_rows, why_no_rows
from qcompile.passes.base import array
from qcompile.passes.chain import find_chains
from tests.passes.float_modules import const, module, run, values, weight

op = relax.op


def chains_of(mod):
    return find_chains(graph.read(mod))


@pytest.mark.parametrize(
    ("shape", "options", "kernel"),
    [
        ((1, 4, 7, 6), {"padding": (1, 0, 2, 1), "strides": (2, 1)}, (6, 4, 3, 2)),
        ((2, 4, 6, 6), {"padding": 1, "groups": 4, "dilation": 2}, (4, 1, 3, 3)),
        ((1, 4, 5, 5), {"groups": 2}, (6, 2, 1, 1)),
        ((1, 4, 9), {"padding": 1, "strides": 2}, (5, 4, 3)),
    ],
)
def test_rows_times_weights_are_what_a_convolution_computes(shape, options, kernel):
    conv = op.nn.conv1d if len(shape) == 3 else op.nn.conv2d
    mod = module(lambda b, x: [b.emit(conv(x, const(values(*kernel)), **options), "y")], x=shape)
    (chain,) = chains_of(mod)
    data = [values(*shape, seed=i) for i in range(3)]
    inputs = layer_inputs([chain], lambda feed: feed, [{"x": x} for x in data], 3)["y"]
    products = inputs.rows @ weight_rows(chain, array(chain.weight)).swapaxes(1, 2)  # all positions: there are few
    for i, x in enumerate(data):
        (want,) = run(mod, x)
        got = np.moveaxis(products[:, inputs.sample == i], 0, 1).reshape(shape[0], -1, kernel[0])
        np.testing.assert_allclose(np.moveaxis(got, 1, 2).reshape(want.shape), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(from_rows(chain, weight_rows(chain, array(chain.weight))), array(chain.weight))


def test_layers_that_read_the_same_share_rows():
    def write(b, x):
        q, k = (b.emit(op.matmul(x, weight(8, n, seed=n)), f"y{n}") for n in (3, 5))
        return [q, k]

    chains = chains_of(module(write, x=(1, 9000, 8)))
    x = values(1, 9000, 8)
    inputs = layer_inputs(chains, lambda feed: feed, [{"x": x}, {"x": x}], 2)
    assert inputs["y3"].rows is inputs["y5"].rows
    assert inputs["y3"].rows.shape == (1, 8192, 8)
    first = inputs["y3"].rows[0, inputs["y3"].sample == 0]
    assert {tuple(row) for row in first} <= {tuple(row) for row in x[0]}
    assert len(np.unique(first, axis=0)) == 4096
    np.testing.assert_array_equal(
        from_rows(chains[0], weight_rows(chains[0], array(chains[0].weight))), weight(8, 3, seed=3).value.numpy()
    )


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (
            lambda b, x: b.emit(op.nn.conv2d_transpose(x, weight(4, 3, 2, 2)), "y"),
            "no rows of what a conv_transpose reads",
        ),
        (
            lambda b, x: b.emit(op.nn.conv2d(x, weight(1, 4, 48, 48)), "y"),
            "9216 weights of an output are more than 8192",
        ),
    ],
)
def test_what_has_no_rows(write, reason):
    (chain,) = chains_of(module(lambda b, x: [write(b, x)], x=(1, 4, 48, 48)))
    assert why_no_rows(chain) == reason
    assert not layer_inputs([chain], lambda feed: feed, [{"x": values(1, 4, 48, 48)}], 1)
