"""Files: paths, external data, sizes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qcompile.frontend import import_onnx
from qcompile.frontend.load import load_graph
from qcompile.frontend.onnx_graph import InputInfo
from tests.frontend.onnx_models import model, node, run, weights


def test_external_data_beside_the_model(tmp_path, monkeypatch):
    path, w = tmp_path / "m.onnx", weights(30, 40)
    proto = model([node("MatMul", "x w")], {"x": (2, 30)}, constants={"w": w})
    onnx.save(proto, path, save_as_external_data=True, location="m.bin", size_threshold=0)
    monkeypatch.chdir("/")
    imported = import_onnx(path)
    np.testing.assert_allclose(run(imported, {"x": np.ones((2, 30), np.float32)})[0][0], w.sum(0), atol=1e-4)
    assert imported.source == str(path)
    assert imported.source_bytes == path.stat().st_size + w.nbytes


def test_nothing_serialises_a_model_over_the_limit(tmp_path, monkeypatch):
    """What a model over 2 GB would hit: protobuf cannot serialise it, so neither may we."""
    path = tmp_path / "m.onnx"
    proto, same = (model([node("MatMul", "x w")], {"x": (2, 3)}, constants={"w": weights(3, 4)}) for _ in range(2))
    onnx.save(proto, path, save_as_external_data=True, location="m.bin", size_threshold=0)

    def refuse(*args, **kwargs):
        raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB")

    check_model = onnx.checker.check_model
    monkeypatch.setattr(onnx.checker, "check_model", lambda m: check_model(m) if isinstance(m, str) else refuse())
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", refuse)
    import_onnx(path)
    monkeypatch.setattr("qcompile.frontend.load.PROTOBUF_LIMIT", 10)
    import_onnx(same)


def test_declared_dimensions():
    declared = [
        helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 3, None, 0]),
        helper.make_tensor_value_info("b", TensorProto.INT64, None),
    ]
    output = [helper.make_tensor_value_info("a2", TensorProto.FLOAT, None)]
    proto = helper.make_model(helper.make_graph([node("Relu", "a", "a2")], "g", declared, output), ir_version=9)
    graph = load_graph(proto)
    assert graph.inputs == [InputInfo("a", "float32", ("N", 3, None, None)), InputInfo("b", "int64", None)]


@pytest.mark.parametrize("by_path", [True, False])
def test_size_of_the_source(tmp_path, by_path):
    proto = model([node("Add", "x w")], {"x": (50,)}, constants={"w": weights(50)})
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    imported = import_onnx(path if by_path else proto)
    assert imported.source_bytes == (path.stat().st_size if by_path else 200)
    assert imported.source == (str(path) if by_path else "tiny")


def test_extents_without_a_name_of_their_own_may_differ():
    proto = model([node("Relu", "x")], {"x": ("?", 3, "?", "N")})
    assert load_graph(proto).inputs[0].dims == (None, 3, None, "N")
