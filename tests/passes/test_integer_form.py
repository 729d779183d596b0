from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from qcompile import graph
from qcompile.passes.islands import islands
from qcompile.reference.interpreter import run
from tests.passes.float_modules import inputs_of, module, weight
from tests.passes.quantized_modules import assert_bodies_agree, feeds_of, integer_of, kinds, model_of, plan_of

op = relax.op


def network(b, x):
    """A small network with a residual, a concatenation, an inner softmax-free branch, and two outputs."""
    c = b.emit(op.nn.conv2d(x, weight(8, 4, 3, 3), padding=(1, 1)), "c")
    r = b.emit(op.nn.relu(b.emit(op.add(c, weight(1, 8, 1, 1)), "biased")), "r")
    d = b.emit(op.nn.conv2d(r, weight(8, 1, 3, 3), padding=(1, 1), groups=8), "d")
    s = b.emit(op.add(d, r), "s")
    pool = b.emit(op.nn.max_pool2d(s, (2, 2), strides=(2, 2)), "pool")
    mean = b.emit(op.nn.avg_pool2d(s, (2, 2), strides=(2, 2)), "average")
    both = b.emit(op.concat([pool, mean], 1), "both")
    gate = b.emit(op.sigmoid(b.emit(op.mean(both, [2, 3], keepdims=True), "m")), "gate")
    scaled = b.emit(op.multiply(both, gate), "scaled")
    flat = b.emit(op.reshape(scaled, (2, 256)), "flat")
    logits = b.emit(op.matmul(flat, weight(256, 5)), "logits")
    return [b.emit(op.nn.softmax(logits), "probabilities"), s]


NETWORK = module(network, x=(2, 4, 8, 8))


def test_nothing_is_dequantized_on_the_way():
    result = integer_of(NETWORK)
    assert kinds(result).count("quantize") == 1
    assert kinds(result).count("dequantize") == 1  # of s, which is an output
    assert [i.name for i in islands(result, plan_of(NETWORK))] == ["probabilities"]


def test_results_are_close_to_the_float_network():
    feeds = feeds_of(NETWORK)
    for expected, actual in zip(run(NETWORK, feeds).values(), run(integer_of(NETWORK), feeds).values(), strict=True):
        assert actual.shape == expected.shape and actual.dtype == expected.dtype
        assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


def test_tvm_alone_builds_it_and_agrees_with_the_oracle():
    """The bodies of composites are ordinary Relax."""
    result = integer_of(NETWORK)
    machine = relax.VirtualMachine(relax.build(result, tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    arrays = [tvm.runtime.tensor(array) for array in inputs_of(NETWORK)]
    compiled = [tensor.numpy() for tensor in machine["main"](*arrays)]
    for expected, actual in zip(run(result, feeds_of(NETWORK)).values(), compiled, strict=True):
        assert np.abs(actual - expected).max() < 0.02 * np.abs(expected).max()


def test_bodies_say_what_specifications_say():
    result = integer_of(NETWORK)
    assert_bodies_agree(result, run(result, feeds_of(NETWORK), capture=True))


def test_code_to_code():
    result = integer_of(NETWORK, integer_inputs=["x"], integer_outputs=["s"])
    main = graph.read(result)
    assert "quantize" not in kinds(result) and "dequantize" not in kinds(result)
    assert [str(t.ty.dtype) for t in (main.params[0], *main.outputs)] == ["uint8", "float32", "uint8"]


def test_everything_in_float():
    result = integer_of(NETWORK, precision="fp32")
    assert "quantize" not in kinds(result) and kinds(result).count("CONV2D") == 2
    expected, actual = run(NETWORK, feeds_of(NETWORK)), run(result, feeds_of(NETWORK))
    np.testing.assert_allclose(actual["probabilities"], expected["probabilities"], rtol=1e-3, atol=1e-5)


def test_an_excluded_layer_and_what_only_lies_around_it_is_float():
    plan = plan_of(NETWORK, exclude=["node of d"])
    found = {i.name: i for i in islands(integer_of(NETWORK, plan), plan, {"d": "the node"})}
    assert (found["s"].op, found["s"].reason) == ("conv2d", "excluded as node of d")
    assert found["average"].reason == "reads s, which is float32"
    assert plan.layers["r"].format == plan.layers["logits"].format == "int8"


def test_passes_are_tvm_passes():
    from qcompile.passes.integer_form import integer_form

    passes = integer_form(plan_of(NETWORK), model_of(NETWORK).layers)
    assert all(isinstance(p, tvm.ir.transform.Pass) for p in passes)
    by_hand = NETWORK
    for each in passes:
        by_hand = each(by_hand)
    tvm.ir.assert_structural_equal(tvm.transform.Sequential(passes)(NETWORK), by_hand)
