"""matmul_f32 against numpy: tails in every direction, broadcast batches, both layouts of B, every vector width."""

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.targets.kernels.matmul_f32 import MatmulTile, default_tile, matmul_f32
from qcompile.targets.x86 import ROWS

WIDE, NARROW = ROWS[0], ROWS[-1]


def check(m, k, n, batch_a=(), batch_b=(), b_transposed=False, target=NARROW, tile=None):
    function = matmul_f32(m, k, n, batch_a, batch_b, b_transposed, target, tile)
    library = tvm.compile(function.with_attr("global_symbol", "matmul"), target.tvm_target())
    rng = np.random.default_rng(0)
    a = rng.standard_normal((*batch_a, m, k), dtype=np.float32)
    b = rng.standard_normal((*batch_b, k, n), dtype=np.float32)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    result = tvm.runtime.tensor(np.full(expected.shape, np.nan, np.float32))
    given_b = np.ascontiguousarray(b.swapaxes(-1, -2)) if b_transposed else b
    library["matmul"](tvm.runtime.tensor(a), tvm.runtime.tensor(given_b), result)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5 * max(1, k) ** 0.5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 5), (17, 3, 100), (100, 17, 33), (1, 100, 65), (47, 1, 16)])
@pytest.mark.parametrize("b_transposed", [False, True])
def test_odd_sizes(shape, b_transposed):
    check(*shape, b_transposed=b_transposed)


@pytest.mark.parametrize(
    ("batch_a", "batch_b"),
    [((2,), (2,)), ((2, 3), ()), ((), (2, 3)), ((2, 1), (3,)), ((1, 3), (2, 1, 3)), ((2, 3), (1, 1)), ((1,), (1, 1))],
)
def test_batches_broadcast_as_in_numpy(batch_a, batch_b):
    check(5, 4, 18, batch_a, batch_b)


def test_batches_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError):
        matmul_f32(2, 2, 2, (2,), (3,), False, NARROW)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_tile_gives_the_same_product(data):
    m, k, n, rows, vectors = (data.draw(st.integers(1, most)) for most in (40, 20, 70, 7, 4))
    packed, b_transposed = data.draw(st.booleans()), data.draw(st.booleans())
    check(m, k, n, b_transposed=b_transposed, tile=MatmulTile(rows, vectors, packed))


@pytest.mark.parametrize("target", ROWS, ids=lambda row: row.name)
def test_default_tile_fits_the_registers(target):
    for m in (1, 2, 5, 14, 15, 64, 1000):
        for n in (1, 16, 100, 4096):
            for b_transposed in (False, True):
                tile = default_tile(m, n, target, b_transposed)
                assert tile.rows * tile.vectors + tile.vectors + 1 <= target.vector_registers
                assert tile.rows >= 1 and tile.vectors >= 1


@pytest.mark.parametrize("batch", [(), (4,)])
def test_threads(batch):
    check(9, 8, 70, batch, batch, target=NARROW.with_threads(2))


def test_results_outside_are_not_written():
    m, k, n = 3, 4, 19
    function = matmul_f32(m, k, n, (), (), False, NARROW)
    library = tvm.compile(function.with_attr("global_symbol", "matmul"), NARROW.tvm_target())
    whole = np.full(m * n + 64, 7, np.float32)
    memory = tvm.runtime.tensor(whole)
    view = memory._create_view((m, n))
    ones = [tvm.runtime.tensor(np.ones(shape, np.float32)) for shape in ((m, k), (k, n))]
    library["matmul"](*ones, view)
    assert (memory.numpy()[: m * n] == k).all()
    assert (memory.numpy()[m * n :] == 7).all()
