"""Narrow floats on a device: emulated conversions are the oracle's, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.manifest import Launch
from qcompile.reference import narrow
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import Program, templates
from qcompile.targets.cuda.storage import NARROW, plain
from tests.reference.test_narrow import numbers

COUNT = 1 << 15


@pytest.fixture(scope="module")
def emulated():
    texts = []
    for dtype, word in NARROW.items():
        element = plain((1,), dtype).type
        texts.append(f"""
QC_KERNEL(1024) round_{word}(const float* x, {element}* y, float* z) {{
  const int i = blockIdx.x * 1024 + threadIdx.x;
  y[i] = to_{word}(x[i]);
  z[i] = from_{word}(y[i]);
}}
""")
    return Emulated(templates() + "".join(texts), optimize=0)


@pytest.mark.parametrize("dtype", NARROW)
def test_conversions(emulated, dtype):
    x = np.resize(np.concatenate([[np.inf, -np.inf, np.nan, 1e30], numbers()]), COUNT).astype(np.float32)
    y, z = np.zeros(COUNT, plain((1,), dtype).bits), np.zeros(COUNT, np.float32)
    places = (("input0", 0), ("output0", 0), ("output1", 0))
    launch = Launch(f"round_{NARROW[dtype]}", COUNT // 1024, 1024, 0, places)
    emulated.run(Program("", (launch,), np.zeros(0, np.uint8), 0), [x], [y, z])
    np.testing.assert_array_equal(y, narrow.to_bits(x, dtype))
    np.testing.assert_array_equal(z, narrow.rounded(x, dtype))
