from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from qcompile.calibrate import calibrate, calibration_data, default_executor
from qcompile.errors import QCompileError
from qcompile.graph import MainBuilder
from qcompile.model import Model, TensorSpec

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
SAMPLES = np.random.default_rng(1).normal(size=(6, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    """conv -> relu -> split, with an integer tensor, and names that Relax would not have chosen."""
    x = relax.Var("x", relax.TensorType((1, 3, 8, 8), "float32"))
    builder = MainBuilder([x])
    conv = builder.emit(relax.op.nn.conv2d(x, relax.const(WEIGHT), padding=1), "conv/1:0")
    relu = builder.emit(relax.op.nn.relu(conv), "relu:0")
    halves = builder.emit(relax.op.split(relu, 2, axis=1), "halves")
    left = builder.emit(relax.TupleGetItem(halves, 0), "left")
    codes = builder.emit(relax.op.astype(left, "int32"), "codes")
    spec = TensorSpec("x", (1, 3, 8, 8), "float32")
    return Model(builder.module([relu, left, codes]), (spec,), (), {})


def fake(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"doubled": 2 * feed["x"]}


def test_the_default_executor_shows_what_layers_make(model: Model):
    """Not the convolution: it is one layer with its relu, and the sum inside is never quantized."""
    seen = default_executor(model)({"x": SAMPLES[:1]})
    assert set(seen) == {"relu:0", "left"}
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [info("y", TensorProto.FLOAT, (1, 4, 8, 8))],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (expected,) = onnxruntime.InferenceSession(onnx_model.SerializeToString()).run(None, {"x": SAMPLES[:1]})
    np.testing.assert_allclose(seen["relu:0"], np.maximum(expected, 0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(seen["left"], seen["relu:0"][:, :2])


def test_statistics_are_of_all_samples(model: Model):
    done: list[int] = []
    stats = calibrate(model, {"x": SAMPLES}, "entropy", progress=done.append)
    assert set(stats.records) == {"x", "relu:0", "left"}
    assert (stats.samples, done) == (6, [1, 2, 3, 4, 5, 6])
    run = default_executor(model)
    outputs = [run({"x": sample[None]})["relu:0"].copy() for sample in SAMPLES]
    record = stats.records["relu:0"]
    assert (record.count, record.min, record.max) == (6 * 4 * 64, np.min(outputs), np.max(outputs))
    assert record.histogram.total == record.count
    assert stats.records["x"].max == SAMPLES.max()


def test_histograms_are_kept_only_for_methods_that_read_them(model: Model):
    stats = calibrate(model, {"x": SAMPLES}, "minmax", executor=fake, num_samples=2)
    assert stats.samples == 2
    assert set(stats.records) == {"x", "doubled"}
    assert stats.records["doubled"].histogram is None
    assert stats.records["doubled"].max == 2 * stats.records["x"].max
    assert calibrate(model, {"x": SAMPLES}, "mse", executor=fake).records["x"].histogram is not None


def test_shards_of_the_data_merge_to_the_whole(model: Model):
    whole = calibrate(model, {"x": SAMPLES}, "percentile", executor=fake)
    shards = [calibrate(model, {"x": part}, "percentile", executor=fake) for part in (SAMPLES[:2], SAMPLES[2:])]
    merged = shards[1].merge(shards[0])
    assert merged.samples == whole.samples
    for name, record in whole.records.items():
        assert merged.records[name].histogram == record.histogram


def test_samples_are_counted_by_the_batch_of_the_model(model: Model):
    batched = Model(model.module, (TensorSpec("x", (2, 3, 8, 8), "float32"),), (), {})
    data = calibration_data({"x": SAMPLES}, batched.inputs)
    assert calibrate(batched, data, executor=fake).samples == 6


def test_samples_that_do_not_fill_a_batch_count(model: Model):
    batched = Model(model.module, (TensorSpec("x", (4, 3, 8, 8), "float32"),), (), {})
    seen: list[int] = []
    stats = calibrate(batched, {"x": SAMPLES}, executor=fake, progress=seen.append)
    assert (stats.samples, seen) == (6, [4, 6])
    assert stats.records["x"].max == SAMPLES.max() and stats.records["x"].min == SAMPLES.min()


def test_errors_come_before_the_model_is_built(model: Model):
    def build() -> None:
        raise AssertionError("the executor was run")

    with pytest.raises(QCompileError, match="unknown calibration method 'kl'"):
        calibrate(model, {"x": SAMPLES}, "kl", executor=build)
    with pytest.raises(QCompileError, match="calibration sample 0: the model has no input 'y'"):
        calibrate(model, {"y": SAMPLES}, executor=build)


def test_constant_data_is_refused(model: Model):
    with pytest.raises(QCompileError) as error:
        calibrate(model, {"x": np.full_like(SAMPLES, 0.5)}, executor=fake)
    assert str(error.value) == (
        "x: every calibration value is 0.5: no range can be found in constant data; give samples of real inputs"
    )
