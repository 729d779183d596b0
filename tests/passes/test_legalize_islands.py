"""LegalizeIslands and ScheduleIslands together: every operator class against numpy."""

import numpy as np
import pytest
import tvm
from tvm import relax

from qcompile import graph
from qcompile.compile import runnable
from qcompile.errors import QCompileError
from qcompile.passes.legalize_islands import LegalizeIslands
from qcompile.passes.schedule_islands import ScheduleIslands
from qcompile.targets.x86 import ROWS

TARGET = ROWS[-1]  # 256 bits: runs wherever the tests run
SIZES = [(1, 1), (3, 17), (2, 3, 100), (4, 1, 64)]
op = relax.op


def tensor(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def module_of(inputs, build):
    """``build(emit, *variables)`` emits operators under names and returns the outputs."""
    params = [relax.Var(f"in/{i}:0", relax.TensorType(a.shape, str(a.dtype))) for i, a in enumerate(inputs)]
    builder = graph.MainBuilder(params)
    return builder.module(build(builder.emit, *params))


def lowered(inputs, build, target=TARGET):
    return ScheduleIslands(target)(LegalizeIslands(target)(module_of(inputs, build)))


def run(inputs, build, target=TARGET):
    call = runnable(module_of(inputs, build), target)
    return list(call({f"in/{i}:0": array for i, array in enumerate(inputs)}).values())


def check(inputs, build, *expected, atol=1e-5):
    for result, wanted in zip(run(inputs, build), expected, strict=True):
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, atol=atol, rtol=1e-5)


def one(operator):
    return lambda emit, *args: [emit(operator(*args), "y")]


def kernels(module):
    return [f for _, f in module.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]


def np_softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def np_erf(x):
    from math import erf

    return np.vectorize(erf, otypes=[np.float32])(x)


@pytest.mark.parametrize("shape", SIZES)
def test_softmax(shape):
    x = 10 * tensor(*shape)
    check([x], one(op.nn.softmax), np_softmax(x))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_over_any_axis(axis):
    x = tensor(3, 16, 16)
    check([x], one(lambda v: op.nn.softmax(v, axis)), np_softmax(x, axis))


def test_softmax_of_a_masked_row():
    x = tensor(2, 8)
    x[0, 3:] = -np.inf
    check([x], one(op.nn.softmax), np_softmax(x))


@pytest.mark.parametrize("shape", SIZES)
def test_layer_norm_with_what_comes_before(shape):
    x, residual, gamma, beta = tensor(*shape), tensor(*shape, seed=1), tensor(shape[-1], seed=2), tensor(shape[-1])
    total = x + residual
    mean, variance = total.mean(-1, keepdims=True), total.var(-1, keepdims=True)

    def build(emit, *args):
        added = emit(op.add(args[0], args[1]), "added")
        return [emit(op.nn.layer_norm(added, args[2], args[3], [-1], 1e-3), "y")]

    check([x, residual, gamma, beta], build, (total - mean) / np.sqrt(variance + 1e-3) * gamma + beta)


@pytest.mark.parametrize(
    ("operator", "function"),
    [
        (op.exp, np.exp),
        (op.tanh, np.tanh),
        (op.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
        (op.erf, np_erf),
        (op.nn.gelu, lambda x: x * 0.5 * (1 + np_erf(x / np.sqrt(2)))),
        (op.nn.silu, lambda x: x / (1 + np.exp(-x))),
        (op.sqrt, np.sqrt),
        (op.log, np.log),
    ],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_functions(operator, function):
    x = np.concatenate([np.linspace(-12, 12, 1001), [0, 1e-6, -1e-6, 80]]).astype(np.float32)
    x = abs(x) + np.float32(1e-3) if operator in (op.sqrt, op.log) else x
    (result,) = run([x], one(operator))
    np.testing.assert_allclose(result, function(x.astype(np.float64)), rtol=2e-6, atol=1e-6)


def test_exp_saturates():
    x = np.array([-np.inf, -1e30, -100, 100, 1e30, np.inf], np.float32)
    (result,) = run([x], one(op.exp))
    np.testing.assert_allclose(result, [1.17e-38] * 3 + [2.39e38] * 3, rtol=0.01)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("operator", "function"), [(op.mean, np.mean), (op.max, np.max), (op.sum, np.sum)])
def test_reductions(shape, keepdims, operator, function):
    x = tensor(*shape)
    check([x], one(lambda v: operator(v, -1, keepdims)), function(x, -1, keepdims=keepdims))


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (1, 2), (0, 1, 2)])
def test_reductions_over_other_axes(axes):
    x = tensor(5, 20, 48)
    check([x], one(lambda v: op.sum(v, list(axes))), x.sum(axes), atol=1e-4)


@pytest.mark.parametrize("axis", [0, -1])
def test_argmax(axis):
    x = tensor(3, 100)
    check([x], one(lambda v: op.argmax(v, axis)), x.argmax(axis))


def test_elementwise_chain_broadcasts():
    x, row, column = tensor(2, 3, 17), tensor(17, seed=1), tensor(3, 1, seed=2)

    def build(emit, x, row, column):
        a = emit(op.multiply(x, column), "a")
        b = emit(op.maximum(a, row), "b")
        return [emit(op.subtract(b, relax.const(np.float32(0.5))), "y")]

    check([x, row, column], build, np.maximum(x * column, row) - 0.5)


def test_a_fused_function_with_several_outputs():
    x = tensor(3, 34)

    def build(emit, x):
        parts = emit(op.split(emit(op.exp(x), "e"), 2, 1), "parts")
        first, second = (emit(relax.TupleGetItem(parts, i), f"part {i}") for i in range(2))
        return [first, emit(op.negative(second), "y")]

    check([x], build, np.exp(x[:, :17]), -np.exp(x[:, 17:]))


def test_gather_where_and_masks():
    table, index = tensor(50, 17), np.array([[3, 49, 0], [7, 7, -50]], np.int64)
    index %= 50

    def build(emit, table, index):
        rows = emit(op.take(table, index, 0), "rows")
        positive = emit(op.greater(rows, relax.const(np.float32(0))), "positive")
        return [emit(op.where(positive, rows, relax.const(np.zeros((1, 1, 17), np.float32))), "y")]

    check([table, index], build, np.maximum(table[index], 0))


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_transposes(order):
    x = tensor(3, 17, 100)
    check([x], one(lambda v: op.permute_dims(v, order)), x.transpose(order))


@pytest.mark.parametrize(("a", "b"), [((2, 3, 5, 4), (3, 4, 9)), ((1, 7, 4), (4, 9)), ((4,), (4, 9)), ((5, 4), (4,))])
def test_matmul(a, b):
    a, b = tensor(*a), tensor(*b, seed=1)
    check([a, b], one(op.matmul), a @ b)


def test_sorts_and_scans():
    x = tensor(3, 10)

    def build(emit, x):
        top = emit(op.topk(x, 2, 1, ret_type="both"), "top")
        values, where = (emit(relax.TupleGetItem(top, i), f"top {i}") for i in range(2))
        return [values, where, emit(op.argsort(x, 1), "order"), emit(op.cumsum(x, 1), "scan")]

    order = np.argsort(-x, 1)[:, :2]
    check([x], build, np.take_along_axis(x, order, 1), order, np.argsort(x, 1), x.cumsum(1))


def attention(emit, q, k, v, mask):
    scores = emit(op.matmul(q, emit(op.permute_dims(k, (0, 2, 1)), "k/T")), "scores")
    scaled = emit(op.divide(scores, relax.const(np.float32(2))), "scaled")
    weights = emit(op.nn.softmax(emit(op.add(scaled, mask), "masked")), "at/tention:0")
    return [emit(op.expand_dims(emit(op.matmul(weights, v), "mix"), 0), "y"), weights]


def attention_inputs():
    return [tensor(2, 6, 4, seed=s) for s in range(3)] + [tensor(6, 6, seed=3)]


@pytest.mark.parametrize("target", [TARGET, TARGET.with_threads(2)], ids=["1 thread", "2 threads"])
def test_attention(target):
    q, k, v, mask = attention_inputs()
    weights = np_softmax(q @ k.transpose(0, 2, 1) / 2 + mask)
    result, seen = run([q, k, v, mask], attention, target)
    np.testing.assert_allclose(result, (weights @ v)[None], atol=1e-5)
    np.testing.assert_allclose(seen, weights, atol=1e-6)


def test_names_survive_fusion():
    module = lowered(attention_inputs(), attention)
    bindings = graph.read(module).bindings
    assert [var.name for var, _ in bindings] == ["k/T", "scores", "at/tention:0", "mix", "y"]
    assert [param.name for param in module["main"].params] == [f"in/{i}:0" for i in range(4)]


def test_only_kernels_and_views_are_left():
    bindings = graph.read(lowered(attention_inputs(), attention)).bindings
    assert [value.op.name for _, value in bindings] == ["relax.call_tir"] * 4 + ["relax.reshape"]


def test_moving_axes_of_extent_one_is_a_view():
    x = tensor(1, 5, 1, 4)
    module = lowered([x], one(lambda v: op.permute_dims(v, (1, 0, 2, 3))))
    assert not kernels(module)


def test_kernels_of_the_module_are_left_alone():
    x = tensor(2, 8)
    module = module_of([x], one(op.exp))
    once = ScheduleIslands(TARGET)(LegalizeIslands(TARGET)(module))
    twice = ScheduleIslands(TARGET)(LegalizeIslands(TARGET)(once))
    tvm.ir.assert_structural_equal(once, twice)


def test_an_operator_without_static_shape_is_refused_by_name():
    with pytest.raises(QCompileError, match=r"^where/it is: operator .* has no static kernel"):
        lowered([tensor(3, 4)], lambda emit, x: [emit(op.nonzero(x), "where/it is")])


def test_batch_norm_with_unused_results():
    x, gamma, beta, mean = tensor(1, 16, 5, 3), tensor(16, seed=1), tensor(16, seed=2), tensor(16, seed=3)
    variance = abs(tensor(16, seed=4)) + 1

    def build(emit, x, *rest):
        both = emit(op.nn.batch_norm(x, *rest, axis=1, epsilon=1e-3, training=False), "all")
        return [emit(relax.TupleGetItem(both, 0), "y")]

    scale, offset, shift, spread = (v[:, None, None] for v in (gamma, beta, mean, np.sqrt(variance + 1e-3)))
    check([x, gamma, beta, mean, variance], build, (x - shift) / spread * scale + offset)


def test_image_operators_without_a_template():
    x = tensor(1, 3, 8, 28)
    pooled = x.reshape(1, 3, 4, 2, 14, 2).mean((3, 5))
    larger = x.repeat(2, 2).repeat(2, 3)

    def build(emit, x):
        nearest = {"method": "nearest_neighbor", "coordinate_transformation_mode": "asymmetric", "layout": "NCHW"}
        resized = emit(op.image.resize2d(x, (16, 56), **nearest, rounding_method="floor"), "larger")
        return [emit(op.nn.avg_pool2d(x, (2, 2), (2, 2)), "pooled"), emit(op.concat([resized, resized], 1), "twice")]

    check([x], build, pooled, np.concatenate([larger, larger], 1))
