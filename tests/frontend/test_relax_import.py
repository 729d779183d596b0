"""Relax modules of any shape become our form of main."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from qcompile.errors import QCompileError
from qcompile.frontend import import_relax
from qcompile.graph import read
from qcompile.model import Layer
from tests.frontend.onnx_models import operators, run, weights


@I.ir_module
class Nested:
    @R.function
    def main(x: R.Tensor((2, 3), "float32"), w: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            lv = R.nn.relu(R.matmul(x, w))
            parts = R.split(lv, 2, axis=1)
            gv = R.add(parts[0], R.const(1.0, "float32"))
            R.output(gv, parts)
        again = R.negative(gv)
        return (gv, parts[1], x, gv, again)


def test_nested_calls_tuples_and_two_blocks():
    w, x = weights(3, 4), weights(2, 3, seed=1)
    imported = import_relax(Nested, {"w": w})
    assert operators(imported) == ["matmul", "relu", "split", "TupleGetItem", "add", "negative", "TupleGetItem"]
    assert len(imported.module["main"].body.blocks) == 1
    assert [i.name for i in imported.inputs] == ["x"]
    assert len({o.name for o in imported.outputs}) == 5
    assert imported.layers["again"] == Layer("again", "negative")
    y = np.maximum(x @ w, 0)
    for ours, expected in zip(
        run(imported, {"x": x}), [y[:, :2] + 1, y[:, 2:], x, y[:, :2] + 1, -y[:, :2] - 1], strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_module_is_not_changed():
    before = Nested.script()
    import_relax(Nested, {"w": weights(3, 4)})
    assert Nested.script() == before


def test_names_are_kept_and_made_unique():
    x = relax.Var("in/x:0", relax.TensorType((2,), "float32"))
    a = relax.Var("same", relax.TensorType((2,), "float32"))
    b = relax.Var("same", relax.TensorType((2,), "float32"))
    c = relax.Var("", relax.TensorType((2,), "float32"))
    calls = (relax.op.nn.relu(x), relax.op.negative(a), relax.op.add(a, b))
    block = relax.BindingBlock([relax.VarBinding(v, call) for v, call in zip((a, b, c), calls, strict=True)])
    body = relax.BlockBuilder().normalize(relax.SeqExpr([block], c))
    module = tvm.IRModule({"main": relax.Function([x], body, c.ty)})
    imported = import_relax(module)
    assert [var.name for var, _ in read(imported.module).bindings] == ["same", "same_1", "value"]
    assert imported.inputs[0].name == "in/x:0"


def test_params_that_the_function_carries():
    w = weights(3, 4)
    function = Nested["main"].with_attrs({"num_input": 1, "params": [tvm.runtime.tensor(w)]})
    imported = import_relax(tvm.IRModule({"main": function}))
    assert [i.name for i in imported.inputs] == ["x"]


def test_tir_functions_and_inlined_relax_functions():
    @I.ir_module
    class Module:
        @T.prim_func(private=True, s_tir=True)
        def double(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
            for i in range(4):
                with T.sblock("b"):
                    v = T.axis.spatial(4, i)
                    y[v] = x[v] * T.float32(2)

        @R.function(private=True)
        def inner(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
            return R.nn.relu(x)

        @R.function
        def entry(x: R.Tensor((4,), "float32")):
            cls = Module
            a = R.call_tir(cls.double, (x,), out_ty=R.Tensor((4,), "float32"))
            return cls.inner(a)

    imported = import_relax(Module, name="entry")
    x = np.float32([-1, 0, 1, 2])
    np.testing.assert_array_equal(run(imported, {"x": x})[0], [0, 0, 2, 4])


def test_refusals():
    def message(module, **options):
        with pytest.raises(QCompileError) as caught:
            import_relax(module, **options)
        return str(caught.value)

    assert message(Nested, name="f") == "relax: the module has no Relax function 'f'; name the entry function"
    assert message(Nested, params={"v": weights(2)}) == "relax: no parameter 'v'; parameters are: w, x"
    n = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((n,), "float32"))
    dynamic = tvm.IRModule({"main": relax.Function([x], relax.SeqExpr([], x), x.ty)})
    assert message(dynamic) == "relax: parameter x: is not a tensor of static shape; give it a static shape"
