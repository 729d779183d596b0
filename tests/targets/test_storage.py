"""``Storage``: where an element lies, said three times (``at``, ``store``, ``view``), and all three agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx
from tvm.sym import Analyzer

from qcompile.targets.storage import Storage


@st.composite
def storages(draw) -> Storage:
    """Plain ones of any rank; blocked images and sequences, with borders."""
    dtype = draw(st.sampled_from(("uint8", "int8", "float32")))
    rank = draw(st.integers(0, 4))
    if rank < 3 or draw(st.booleans()):
        return Storage(tuple(draw(st.integers(1, 5)) for _ in range(rank)), dtype)
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 35))
    top, left, bottom, right = (draw(st.integers(0, 2)) for _ in range(4))
    shape = (n, c, *(draw(st.integers(1, 4)) for _ in range(rank - 2)))
    return Storage(shape, dtype, draw(st.sampled_from((1, 3, 4, 16))), (top, left, bottom, right), 7)


def values(s: Storage) -> np.ndarray:
    """Another value everywhere, as far as the dtype goes."""
    return np.arange(np.prod(s.shape, dtype=int)).reshape(s.shape).astype(s.dtype)


@settings(max_examples=60, deadline=None)
@given(storages())
def test_view_reads_what_store_wrote(s):
    flat = s.store(values(s))
    assert flat.shape == (s.numel,) and flat.dtype == s.dtype and flat.nbytes == s.nbytes
    np.testing.assert_array_equal(s.view(flat), values(s))
    longer = np.concatenate([flat, flat])  # slack behind a buffer does not matter
    np.testing.assert_array_equal(s.view(longer), values(s))


@settings(max_examples=60, deadline=None)
@given(storages())
def test_at_says_where_store_puts_an_element(s):
    flat = s.store(values(s))
    places = [s.at(*index) for index in np.ndindex(s.shape)]
    np.testing.assert_array_equal(flat[places], values(s).reshape(-1))
    assert len(set(places)) == len(places)


@settings(max_examples=60, deadline=None)
@given(storages())
def test_everything_else_is_border_or_padding_channel(s):
    flat = s.store(np.full(s.shape, 1))
    rest = np.delete(flat, [s.at(*index) for index in np.ndindex(s.shape)])
    if not s.blocked:
        assert rest.size == 0
        return
    n, c, h, w = s.image
    padding = n * (s.blocks * s.block - c) * h * w
    assert np.count_nonzero(rest == 0) == padding
    assert np.count_nonzero(rest == 7) == rest.size - padding


@settings(max_examples=30, deadline=None)
@given(storages().filter(lambda s: s.shape), st.data())
def test_the_index_of_an_expression_is_that_of_its_value(s, data):
    """Kernels ask with TIR expressions, ``view`` and the tests with ints."""
    index = [data.draw(st.integers(0, extent - 1)) for extent in s.shape]
    variables = [tirx.Var(f"i{k}", "int32") for k in range(len(index))]
    analyzer = Analyzer()
    for variable, value in zip(variables, index, strict=True):
        analyzer.bind(variable, tirx.IntImm("int32", value))
    assert int(analyzer.simplify(s.at(*variables))) == s.at(*index)


def test_pixels_may_lie_in_the_border():
    s = Storage((1, 16, 2, 3), "uint8", 16, (1, 2, 1, 2), 9)
    flat = s.store(np.full(s.shape, 1))
    assert s.pixel(0, 0, -1, -2) == 0
    assert flat[s.pixel(0, 0, -1, 0)] == flat[s.pixel(0, 0, 0, -1)] == flat[s.pixel(0, 0, 2, 2)] == 9
    assert flat[s.pixel(0, 0, 1, 2)] == 1
    assert s.pixel(0, 0, 1, 0) - s.pixel(0, 0, 0, 0) == s.row == 7 * 16
    assert s.numel == 4 * s.row == s.plane


def test_a_vector_of_channels_is_contiguous_and_blocks_are_planes():
    s = Storage((2, 40, 3, 3), "float32", 16, (1, 1, 1, 1))
    assert s.blocks == 3 and s.nbytes == 2 * 3 * 5 * 5 * 16 * 4
    assert [s.at(0, c, 1, 1) - s.at(0, 0, 1, 1) for c in (1, 15, 16, 33)] == [1, 15, s.plane, 2 * s.plane + 1]
    assert not s.contiguous_pixels
    assert s.with_border((1, 0, 1, 0)).contiguous_pixels  # rows above and below leave no gaps between rows


def test_a_sequence_is_an_image_of_one_row():
    sequence, image = Storage((2, 5, 7), "int8", 16, (0, 1, 0, 2)), Storage((2, 5, 1, 7), "int8", 16, (0, 1, 0, 2))
    assert sequence.image == image.image and sequence.numel == image.numel
    assert sequence.at(1, 4, 6) == image.at(1, 4, 0, 6)


def test_what_cannot_be_stored_is_refused():
    with pytest.raises(ValueError, match="blocked storage is for"):
        Storage((2, 3), "uint8", 16)
    with pytest.raises(ValueError, match="only blocked storage has a border"):
        Storage((1, 1, 2, 2), "uint8", 0, (1, 0, 0, 0))
    with pytest.raises(ValueError):
        Storage((2, 3), "uint8").at(1)
