"""Reading and rebuilding ``main``."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.ir import IRModule

from qcompile.graph import MAIN, MainBuilder, read, reads, substitute
from qcompile.ops import ChannelShuffle
from tests.properties.graphs import composite

TENSOR = relax.TensorType((1, 4), "float32")


@pytest.fixture
def x() -> relax.Var:
    return relax.Var("in/put:0", TENSOR)


def test_names_stay_verbatim_through_a_rebuild(x):
    builder = MainBuilder([x])
    first = builder.emit(relax.op.nn.relu(x), "block 1/Relu:0")
    second = builder.emit(relax.op.negative(first), "block 1/Relu:0")  # the same name twice is no reason to rename
    module = builder.module([second, first])
    relax.analysis.well_formed(module)
    main = read(module)
    assert [var.name for var, _ in main.bindings] == ["block 1/Relu:0", "block 1/Relu:0"]
    assert [p.name for p in main.params] == ["in/put:0"]
    assert [o.same_as(v) for o, (v, _) in zip(main.outputs, reversed(main.bindings), strict=True)] == [True, True]


def test_users_are_counted_once_each_and_outputs_not(x):
    builder = MainBuilder([x])
    doubled = builder.emit(relax.op.add(x, x), "doubled")
    unused = builder.emit(relax.op.negative(x), "unused")
    users = read(builder.module([doubled, unused])).users()
    names = {var.name: [user.name for user in found] for var, found in users.items()}
    assert names == {"in/put:0": ["doubled", "unused"], "doubled": [], "unused": []}


def test_reads_looks_into_tuples(x):
    y = relax.Var("y", TENSOR)
    value = relax.op.concat(relax.Tuple([x, y, x]), axis=1)
    assert [v.name for v in reads(value)] == ["in/put:0", "y", "in/put:0"]
    assert reads(relax.const(np.zeros(1, "float32"))) == []
    replaced = substitute(value, {y: x})
    assert [v.name for v in reads(replaced)] == ["in/put:0"] * 3


def test_functions_get_names_of_their_own_and_unused_ones_go(x):
    def double() -> relax.Function:
        return composite(ChannelShuffle(1), [TENSOR], TENSOR)

    builder = MainBuilder([x])
    first = builder.call(double(), [x], "a", "double")
    builder.call(double(), [x], "dropped", "double")
    module = builder.module([first])
    assert sorted(g.name_hint for g in module.get_global_vars()) == ["double_0", MAIN]
    again = MainBuilder(read(module).params, module)
    second = again.call(double(), [read(module).params[0]], "b", "double")
    rebuilt = again.module([second])
    assert sorted(g.name_hint for g in rebuilt.get_global_vars()) == ["double_1", MAIN]


def test_attributes_of_main_survive(x):
    builder = MainBuilder([x])
    module = builder.module([builder.emit(relax.op.nn.relu(x), "y")])
    module = IRModule({module.get_global_var(MAIN): module[MAIN].with_attr("note", "kept")})
    main = read(module)
    again = MainBuilder(main.params, module)
    rebuilt = again.module([again.emit(main.bindings[0][1], "y")])
    assert rebuilt[MAIN].attrs["note"] == "kept"
    assert rebuilt[MAIN].attrs["global_symbol"] == MAIN


def test_a_single_result_reads_as_a_tuple_of_one(x):
    builder = relax.BlockBuilder()
    with builder.function(MAIN, [x]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.relu(x))
        builder.emit_func_output(y)
    assert len(read(builder.get()).outputs) == 1
