"""The peers' own int8 models: made once, kept, and really in int8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from qcompile.bench import peers
from qcompile.bench.contenders import Contender
from qcompile.bench.peers import int8_model, peer_contenders
from qcompile.errors import QCompileError

RNG = np.random.default_rng(0)
FEEDS = [{"x": RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(3)]


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weight = numpy_helper.from_array(RNG.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("Relu", ["c"], ["y"], "relu")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4, 6, 6])],
        [weight],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_onnxruntime_quantizes_per_channel_into_qdq(model):
    path = int8_model("onnxruntime", model, FEEDS)
    made = onnx.load(path)
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= {node.op_type for node in made.graph.node}
    weights = [i for i in made.graph.initializer if i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 4]
    assert [tuple(w.dims) for w in weights] == [(4, 3, 3, 3)]
    scales = [i for i in made.graph.initializer if i.name.startswith("w_scale")]
    assert [tuple(s.dims) for s in scales] == [(4,)]
    assert not list(path.parent.glob("prepared*"))


def test_int8_models_are_kept_by_model_and_data(model, monkeypatch):
    path = int8_model("onnxruntime", model, FEEDS)
    assert int8_model("onnxruntime", model, FEEDS[:2]) != path
    monkeypatch.setattr(peers, "_quantize_onnxruntime", lambda *args: pytest.fail("made again"))
    assert int8_model("onnxruntime", model, FEEDS) == path


def test_a_failed_quantization_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(source, calibration, out, *options):
        out.write_text("half")
        raise RuntimeError("no such\nluck")

    monkeypatch.setattr(peers, "_quantize_onnxruntime", fail)
    notes = []
    (only,) = peer_contenders(["onnxruntime"], model, FEEDS, FEEDS[0], note=notes.append)
    assert only.format == "fp32"
    assert notes == ["onnxruntime: no int8 model: its own tool fails (luck)"]
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


@pytest.mark.parametrize("peer", peers.PEERS)
def test_both_contenders_of_a_peer_run(model, peer):
    for package in peers._NEEDS[peer]:
        pytest.importorskip(package)
    contenders = peer_contenders([peer], model, FEEDS, FEEDS[0])
    assert [c.label for c in contenders] == [f"{peer} fp32", f"{peer} int8"]
    for contender in contenders:
        contender.open()()


def test_inputs_of_a_contender_need_not_outlive_it(model):
    """Bound memory belongs to the call, not to whoever made the feed."""
    call = Contender("onnxruntime", "fp32", model, 1, {"x": FEEDS[0]["x"][:, :, ::-1]}).open()
    call()


def test_an_engine_that_refuses_the_model(tmp_path):
    (tmp_path / "m.onnx").write_text("hello")
    with pytest.raises(QCompileError) as caught:
        Contender("onnxruntime", "fp32", tmp_path / "m.onnx").open()
    assert str(caught.value).startswith("onnxruntime fp32 m.onnx: cannot run it: ")


def test_unknown_and_missing_peers(monkeypatch):
    with pytest.raises(QCompileError) as caught:
        peers.check_peers(["openvin"])
    assert str(caught.value) == "--vs: no peer 'openvin'; did you mean 'openvino'? (one of: onnxruntime, openvino)"
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None if name == "nncf" else object())
    with pytest.raises(QCompileError) as caught:
        peers.check_peers(["openvino"])
    assert str(caught.value) == "--vs openvino: nncf not installed; pip install 'qcompile[peers]'"
