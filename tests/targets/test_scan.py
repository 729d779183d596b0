"""Running sums and products against numpy."""

import numpy as np
import pytest
import tvm

from qcompile.targets.kernels.scan import scan


def run(kind, x, axis, out_dtype, exclusive):
    function = scan(kind, x.shape, axis, str(x.dtype), out_dtype, exclusive).with_attr("global_symbol", "scan")
    y = tvm.runtime.tensor(np.empty(x.shape, out_dtype))
    tvm.compile(function, tvm.target.Target("llvm"))["scan"](tvm.runtime.tensor(x), y)
    return y.numpy()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("kind", "function"), [("cumsum", np.cumsum), ("cumprod", np.cumprod)])
def test_inclusive(kind, function, axis):
    x = np.random.default_rng(0).standard_normal((3, 17, 2), dtype=np.float32)
    np.testing.assert_allclose(run(kind, x, axis, "float32", False), function(x, axis), rtol=1e-5)


def test_exclusive_in_another_type():
    x = np.array([[True, True, False], [True, False, True]])
    np.testing.assert_array_equal(run("cumsum", x, 1, "int64", True), [[0, 1, 2], [0, 1, 1]])
