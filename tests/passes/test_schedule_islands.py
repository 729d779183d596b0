"""ScheduleIslands on single functions: same numbers as before, vectors where there should be, nothing lost silently."""

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, topi
from tvm.ir import GlobalVar, IRModule

from qcompile.passes.island_blocks import vector_factor
from qcompile.passes.island_math import softmax
from qcompile.passes.schedule_islands import SCHEDULED, UNSCHEDULED, ScheduleIslands, scheduled
from qcompile.targets.x86 import ROWS

TARGET = ROWS[-1]  # 256 bits: runs wherever the tests run
CONFIG = {"tirx.disable_storage_rewrite": True}  # as builds have it


def function_of(build, *shapes):
    inputs = [te.placeholder(shape, "float32", name=f"x{i}") for i, shape in enumerate(shapes)]
    return te.create_prim_func([*inputs, build(*inputs)]).without_attr("global_symbol")


def compiled(function, target):
    with tvm.transform.PassContext(config=CONFIG):
        return tvm.compile(function.with_attr("global_symbol", "island"), target.tvm_target())


def check(build, reference, *shapes, target=TARGET):
    function = scheduled(function_of(build, *shapes), target)
    assert UNSCHEDULED not in function.attrs
    arrays = [np.random.default_rng(i).standard_normal(shape, dtype=np.float32) for i, shape in enumerate(shapes)]
    expected = np.asarray(reference(*[a.astype(np.float64) for a in arrays]))
    result = tvm.runtime.tensor(np.full(expected.shape, np.nan, np.float32))
    compiled(function, target)["island"](*map(tvm.runtime.tensor, arrays), result)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5, rtol=2e-5)
    return function


def np_softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def layer_norm(x, gamma, beta):
    return topi.nn.layer_norm(x, gamma, beta, [len(x.shape) - 1], 1e-5)


def np_layer_norm(x, gamma, beta):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta


extent = st.sampled_from([1, 2, 3, 7, 8, 16, 17, 24, 37, 64, 100])


@settings(max_examples=12, deadline=None)
@given(st.tuples(extent, extent), st.integers(0, 1))
def test_softmax(shape, axis):
    check(lambda x: softmax(x, axis), lambda x: np_softmax(x, axis), shape)


@settings(max_examples=8, deadline=None)
@given(extent, extent)
def test_layer_norm(rows, width):
    check(layer_norm, np_layer_norm, (rows, width), (width,), (width,))


@settings(max_examples=8, deadline=None)
@given(st.tuples(extent, extent, extent), st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 2)]), st.booleans())
def test_reductions(shape, axes, keepdims):
    check(lambda x: topi.max(x, axes, keepdims), lambda x: x.max(axes, keepdims=keepdims), shape)


@settings(max_examples=8, deadline=None)
@given(st.tuples(extent, extent, st.sampled_from([1, 3, 16])), st.permutations(range(3)))
def test_transposes(shape, order):
    check(lambda x: topi.transpose(x, order), lambda x: x.transpose(order), shape)


@settings(max_examples=8, deadline=None)
@given(extent, extent)
def test_chains_with_broadcasting(rows, width):
    def build(x, row, column):
        return topi.multiply(topi.add(x, row), topi.subtract(topi.exp(column), x))

    check(build, lambda x, row, column: (x + row) * (np.exp(column) - x), (rows, width), (width,), (rows, 1))


def test_a_nest_without_work_of_its_own_is_inlined():
    function = check(
        lambda x: topi.add(topi.multiply(x, x), topi.nn.relu(x)), lambda x: x * x + np.maximum(x, 0), (4, 8)
    )
    assert "alloc" not in str(function)


@pytest.mark.parametrize(
    ("build", "shapes"), [(lambda x: softmax(x, 1), [(4, 64)]), (layer_norm, [(4, 64), (64,), (64,)])]
)
def test_rows_are_vectors_on_the_stack(build, shapes):
    function = scheduled(function_of(build, *shapes), TARGET)
    assert "T.Ramp(" in str(function)
    assert "AllocWorkspace" not in compiled(function, TARGET).mod.inspect_source("ll")


@pytest.mark.parametrize(("threads", "rows", "parallel"), [(1, 1024, False), (2, 1024, True), (2, 4, False)])
def test_large_islands_use_the_threads(threads, rows, parallel):
    function = check(lambda x: softmax(x, 1), np_softmax, (rows, 64), target=TARGET.with_threads(threads))
    assert ("T.parallel" in str(function)) == parallel


def test_what_has_no_schedule_says_so_and_still_runs():
    x = te.placeholder((3, 8), "float32")
    argmax = te.create_prim_func([x, topi.argmax(x, 1)])
    function = scheduled(argmax, TARGET)
    assert "calls a library" in str(function.attrs[UNSCHEDULED])
    tvm.ir.assert_structural_equal(function.without_attr(UNSCHEDULED), argmax)


def test_scheduled_functions_are_left_alone():
    done = function_of(lambda x: topi.exp(x), (4, 4)).with_attr(SCHEDULED, True)
    todo = function_of(lambda x: topi.exp(x), (4, 4))
    module = ScheduleIslands(TARGET)(IRModule({GlobalVar("done"): done, GlobalVar("todo"): todo}))
    tvm.ir.assert_structural_equal(module["done"], done)
    assert module["todo"].attrs[SCHEDULED]


@pytest.mark.parametrize(
    ("extent", "lanes", "factor"),
    [(64, 16, 16), (1, 16, None), (17, 16, 17), (100, 16, 25), (37, 16, None), (12, 8, 12)],
)
def test_vector_factor(extent, lanes, factor):
    assert vector_factor(extent, lanes) == factor
