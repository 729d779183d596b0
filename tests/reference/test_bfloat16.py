from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qcompile.reference import bfloat16


def test_ties_go_to_even_and_nothing_else_is_special():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 0.0, -0.0, np.inf, -np.inf, 3.4e38], np.float32)
    assert bfloat16.rounded(values).tolist() == [1.0, 1.0, 1 + 2**-6, -1.0, 0.0, -0.0, np.inf, -np.inf, np.inf]
    assert np.signbit(bfloat16.rounded(values)[5]) and np.isnan(bfloat16.rounded(np.array([np.nan], np.float32))[0])
    all_ones = np.array([0x7FFFFFFF], np.uint32).view(np.float32)  # a NaN that rounding up would turn into -0.0
    assert np.isnan(bfloat16.rounded(all_ones)[0])


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_any_number_as_others_round_it(bits):
    values = np.array(bits, np.uint32).view(np.float32)
    np.testing.assert_array_equal(bfloat16.rounded(values), values.astype(ml_dtypes.bfloat16).astype(np.float32))
