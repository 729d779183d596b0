from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from tvm import relax

from qcompile import graph, ops
from qcompile.assign.imported import plan_imported
from qcompile.assign.uniform import plan_uniform
from qcompile.calibrate.stats import TensorRecord, TensorStats
from qcompile.compile import runnable
from qcompile.errors import QCompileError
from qcompile.graph import MainBuilder
from qcompile.passes.fold_gather import fold_gather
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.passes.islands import islands
from qcompile.plan import QuantPlan, TensorPlan
from qcompile.reference.interpreter import run
from qcompile.targets.select import select_target
from tests.passes.float_modules import const, values
from tests.passes.quantized_modules import assert_bodies_agree, integer_of, kinds, model_of, specs_of

op = relax.op
IDS = np.array([[0, 129, -1, -130, 64, 7], [5, 5, 300, 1, 2, -2]], np.int64)  # 300 is out of range, and wraps


def embedding(rows=130, width=40, positions=(), axis=0):
    """take of a table (rows, width), and the sum with a constant if ``positions`` is its shape."""
    ids = relax.Var("ids", relax.TensorType(IDS.shape, "int64"))
    builder = MainBuilder([ids])
    y = builder.emit(op.take(const(values(rows, width)), ids, axis, mode="wrap"), "y")
    if positions:
        y = builder.emit(op.add(y, const(values(*positions, seed=1))), "z")
    return builder.module([y])


def planned(module):
    return plan_uniform(model_of(module), None)


LONG = (6, 1000)  # of positions: 6 rows that are long enough to be stored as codes


@pytest.mark.parametrize(
    ("module", "plans"),
    [
        (embedding(), ["y.weight"]),
        (embedding(width=1000, positions=LONG), ["z.weight", "z.bias"]),
        (embedding(width=1000, positions=(1, *LONG)), ["z.weight", "z.bias"]),
    ],
    ids=["table", "positions", "positions (1, 6, 1000)"],
)
def test_rows_are_looked_up_as_codes(module, plans):
    plan = planned(module)
    assert list(plan.tensors) == plans
    qdq, result = insert_qdq(plan)(module), integer_of(module, plan)
    assert kinds(result) == ["GATHER"] and specs_of(result) == [ops.Gather()]
    assert not islands(result, plan)
    expected = run(qdq, {"ids": IDS % 130})
    actual = run(result, {"ids": IDS}, capture=True)
    name = graph.read(result).outputs[0].name
    np.testing.assert_array_equal(actual[name], expected[name])
    assert_bodies_agree(result, {**actual, "ids": IDS % 130})
    np.testing.assert_allclose(expected[name], run(module, {"ids": IDS % 130})[name], atol=2 * 0.51 / 127)


@pytest.mark.parametrize("positions", [(), LONG], ids=str)
def test_the_kernel_computes_the_same(positions):
    module = embedding(width=1000, positions=positions)
    result = integer_of(module, planned(module))
    ((name, actual),) = runnable(result, select_target("native"))({"ids": IDS}).items()
    np.testing.assert_array_equal(actual, run(result, {"ids": IDS})[name])


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (embedding(rows=4), "a table of 160 elements; codes pay from 4096"),
        (embedding(axis=1, rows=130, width=130), "no integer form of take"),
    ],
)
def test_small_tables_and_columns_stay_in_float(module, reason):
    plan = planned(module)
    assert not plan.tensors and plan.layers["y"].why == reason
    assert kinds(integer_of(module, plan)) == ["take"]


def test_a_table_with_infinity_stays_in_float():
    table = values(130, 40)
    table[3, 4] = -np.inf
    ids = relax.Var("ids", relax.TensorType(IDS.shape, "int64"))
    builder = MainBuilder([ids])
    module = builder.module([builder.emit(op.take(const(table), ids, 0, mode="wrap"), "y")])
    assert planned(module).layers["y"].why == "NaN or infinity in its table"


def test_what_is_added_stays_apart_unless_it_is_a_large_table():
    module = embedding(positions=(6, 40))
    assert kinds(integer_of(module, planned(module))) == ["GATHER", "BINARY"]


def test_a_layer_kept_in_float_is_not_folded():
    module = embedding()
    plan = plan_uniform(model_of(module), None, exclude=["take"])
    assert plan.layers["y"].why == "excluded as take" and kinds(integer_of(module, plan)) == ["take"]


def test_a_float_table_is_refused(caplog):
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        assert kinds(fold_gather()(embedding())) == ["take"]
    assert "y: the table is not int8" in caplog.text


def test_codes_of_the_rows_are_made_of_their_float():
    """A dense layer that reads rows gets them quantized; who reads them as float32 does not see that."""
    ids = relax.Var("ids", relax.TensorType(IDS.shape, "int64"))
    builder = MainBuilder([ids])
    y = builder.emit(op.take(const(values(130, 40)), ids, 0, mode="wrap"), "y")
    module = builder.module([builder.emit(op.matmul(y, const(values(40, 8))), "z"), y])
    stats = TensorStats({"y": TensorRecord.of(values(130, 40), histogram=False)}, samples=1)
    result = integer_of(module, plan_uniform(model_of(module), stats))
    assert kinds(result) == ["GATHER", "quantize", "DENSE"]


@pytest.mark.parametrize(("names", "kind"), [(["y"], "take"), (["y", "y.weight"], "GATHER")])
def test_a_model_with_scales_decides_itself(names, kind):
    module = embedding()
    given = QuantPlan({name: TensorPlan((0.01,), (0,), "int8") for name in names})
    assert kinds(integer_of(module, plan_imported(replace(model_of(module), imported_plan=given)))) == [kind]


@pytest.mark.parametrize("positions", [(), LONG], ids=["table", "positions"])
def test_int4_rows_by_groups(positions):
    """A plan of int4 rows becomes codes and scales of groups, which mean what the QDQ form does, to the bit."""
    module = embedding(width=1000, positions=positions)
    plan = plan_uniform(model_of(module), None, "w4a8", group_size=40)
    qdq, result = insert_qdq(plan)(module), integer_of(module, plan)
    assert kinds(result) == ["GATHER"] and specs_of(result) == [ops.Gather(40)]
    assert not islands(result, plan)
    ids = {"ids": IDS % 130}
    expected, actual = (run(m, ids, capture=True) for m in (qdq, result))
    name = "z" if positions else "y"
    np.testing.assert_array_equal(actual[name], expected[name])
    assert_bodies_agree(result, actual)
    compiled = runnable(result, select_target("x86-avx2"))(ids)
    np.testing.assert_array_equal(next(iter(compiled.values())), actual[name])


def test_a_table_of_positions_has_no_groups():
    module = embedding(width=1000, positions=LONG)
    plan = plan_uniform(model_of(module), None, "w4a8", group_size=40)
    bias = replace(plan.tensors["z.bias"], group=40, group_scale=bytes([1]) * 6 * 25)
    with pytest.raises(QCompileError, match="z.bias: no weights by groups here: it is not the layer's weight"):
        insert_qdq(QuantPlan({**plan.tensors, "z.bias": bias}, plan.layers))(module)


@pytest.mark.parametrize("positions", [(), LONG], ids=["table", "positions"])
def test_rows_of_float16(positions):
    module = embedding(width=1000, positions=positions)
    plan = plan_uniform(model_of(module), None, "fp16")
    name = "z" if positions else "y"
    assert plan.layers[name].format == "fp16" and {t.dtype for t in plan.tensors.values()} == {"float16"}
    qdq, result = insert_qdq(plan)(module), integer_of(module, plan)
    assert kinds(result) == ["GATHER"] and not islands(result, plan)
    ids = {"ids": IDS % 130}
    before, expected, actual = (run(m, ids, capture=True) for m in (module, qdq, result))
    np.testing.assert_array_equal(actual[name], expected[name])
    assert 0 < np.abs(actual[name] - before[name]).max() < 2e-3 * np.abs(before[name]).max()
    assert_bodies_agree(result, actual)
    compiled = runnable(result, select_target("x86-avx2"))(ids)
    np.testing.assert_array_equal(next(iter(compiled.values())), actual[name])
