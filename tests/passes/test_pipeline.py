"""The pipeline as a list: read, cut, extended, dumped."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.ir.transform import Pass

from qcompile.compile import runnable
from qcompile.errors import QCompileError
from qcompile.passes.base import local_pass, module_pass, op_name
from qcompile.passes.pipeline import form_passes, lowering_passes, pipeline, run_passes, tidy_passes
from qcompile.reference import interpreter
from tests.passes.float_modules import module, operators, weight
from tests.passes.quantized_modules import feeds_of, kinds, plan_of
from tests.targets.running import AVX2

op = relax.op


def network(b, x):
    c = b.emit(op.nn.conv2d(x, weight(8, 4, 3, 3)), "c")
    return [b.emit(op.nn.relu(c), "y")]


NETWORK = module(network, x=(1, 4, 5, 5))


def names(passes) -> list[str]:
    return [each.info.name for each in passes]


def test_it_is_a_list_of_tvm_passes_in_order():
    plan = plan_of(NETWORK)
    whole = pipeline(plan, AVX2)
    assert all(isinstance(each, Pass) for each in (*tidy_passes(), *whole))
    assert names(whole) == names(form_passes(plan)) + names(lowering_passes(AVX2))
    assert names(lowering_passes(AVX2))[-3:] == ["LowerLayers", "LegalizeIslands", "ScheduleIslands"]
    found = names(form_passes(plan))
    assert found.index("InsertQDQ") < found.index("FoldWeighted") and len(set(names(tidy_passes()))) > 3


def test_a_callers_list_is_his_own():
    tidy_passes().clear()
    assert tidy_passes()


def test_dumps_are_numbered_and_named_after_passes(tmp_path):
    passes = form_passes(plan_of(NETWORK))
    run_passes(NETWORK, passes, tmp_path / "new" / "ir", 7)
    files = sorted(p.name for p in (tmp_path / "new" / "ir").iterdir())
    assert files == [f"{i:03d}_{each.info.name}.py" for i, each in enumerate(passes, 7)]
    inserted = (tmp_path / "new" / "ir" / f"{7 + names(passes).index('InsertQDQ'):03d}_InsertQDQ.py").read_text()
    assert "R.quantize" in inserted and "def main" in inserted


@local_pass("LeakyRelu")
def leaky(draft, value, name):
    """relu(x) -> leakyrelu(x): not a thing to do to a model, but to be seen."""
    return op.nn.leakyrelu(value.args[0], 0.5) if op_name(value) == "nn.relu" else None


def test_a_pass_of_ones_own_between_the_others():
    changed = run_passes(NETWORK, [leaky, *tidy_passes()])
    assert "leakyrelu" in operators(changed) and "relu" not in operators(changed)
    plan = plan_of(changed)
    form = run_passes(NETWORK, [leaky, *form_passes(plan)])
    feeds = feeds_of(form)
    want = interpreter.run(form, feeds)["y"]
    assert want.min() < 0
    np.testing.assert_array_equal(runnable(form, AVX2)(feeds)["y"], want)


def test_a_pipeline_cut_before_folding_still_means_the_same():
    """QDQ form without a single fused layer: everything is an island, and runs."""
    passes = form_passes(plan_of(NETWORK))
    cut = passes[: names(passes).index("InsertQDQ") + 1]
    form = run_passes(NETWORK, cut)
    assert "dequantize" in kinds(form) and "conv2d" in kinds(form)
    feeds = feeds_of(form)
    np.testing.assert_allclose(
        runnable(form, AVX2)(feeds)["y"], interpreter.run(form, feeds)["y"], rtol=1e-4, atol=1e-4
    )


def failing(error):
    def run(_):
        raise error

    return module_pass("Failing", run)


def test_an_error_of_a_pass_is_the_one_that_was_raised():
    errors = [QCompileError("no", node="conv1", remedy="mend it"), QCompileError("no", node="conv2", remedy="mend it")]
    for error in errors:
        with pytest.raises(QCompileError) as caught:
            run_passes(NETWORK, [*tidy_passes(), failing(error)])
        assert caught.value is error and caught.value.node == error.node and caught.value.remedy == "mend it"


def test_an_error_of_a_foreign_pass_keeps_its_message():
    @tvm.ir.transform.module_pass(opt_level=0)
    def foreign(mod, _):
        raise QCompileError("no", node="conv1")

    with pytest.raises(QCompileError, match=r"^conv1: no$"):
        run_passes(NETWORK, [foreign])
    with pytest.raises(ValueError, match=r"^unknown$"):
        run_passes(NETWORK, [failing(ValueError("unknown"))])
