"""Where elements lie: channels last, padded to whole words."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.targets.cuda.storage import Storage, channels_last, pitch_of, plain, rows_last


@pytest.mark.parametrize(
    "storage",
    [
        channels_last((2, 5, 3, 4), "uint8"),
        channels_last((2, 20, 6), "int8"),
        channels_last((3, 7), "float32"),
        rows_last((2, 3, 17), "uint8"),
        plain((2, 3, 4, 5), "float32"),
        plain((), "float32"),
    ],
)
def test_what_is_stored_is_loaded(storage):
    logical = np.arange(np.prod(storage.shape)).astype(storage.dtype).reshape(storage.shape)
    flat = storage.store(logical)
    assert flat.shape == (storage.numel,) and flat.nbytes == storage.nbytes
    np.testing.assert_array_equal(storage.load(flat), logical)


def test_an_index_is_where_the_element_lies():
    storage = channels_last((2, 5, 3, 4), "uint8")
    logical = np.arange(120, dtype=np.uint8).reshape(2, 5, 3, 4)
    at = eval(storage.at(["1", "4", "2", "3"]))
    assert storage.store(logical)[at] == logical[1, 4, 2, 3]


@pytest.mark.parametrize(("channels", "pitch"), [(1, 4), (3, 4), (5, 8), (9, 16), (16, 16), (17, 32), (100, 112)])
def test_rows_of_codes_are_whole_pieces(channels, pitch):
    assert pitch_of(channels) == pitch


def test_floats_are_not_padded():
    assert channels_last((2, 5, 3, 4), "float32").pitch == 5


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (channels_last((2, 20, 1, 1), "uint8"), channels_last((2, 20), "uint8"), True),
        (channels_last((2, 20, 1, 1), "float32"), plain((2, 20), "float32"), True),
        (plain((2, 3, 4), "float32"), plain((6, 4), "float32"), True),
        (channels_last((2, 20), "uint8"), plain((2, 20), "uint8"), False),  # padded
        (channels_last((2, 16, 2, 2), "uint8"), plain((2, 16, 2, 2), "uint8"), False),  # in another order
        (channels_last((2, 16), "uint8"), channels_last((2, 16), "int8"), False),
    ],
)
def test_when_a_buffer_serves_as_another(a: Storage, b: Storage, same: bool):
    assert a.same_memory(b) is b.same_memory(a) is same
