"""The whole message of every refusal: where, why, what to do."""

import numpy as np
import onnx
import pytest

from qcompile.errors import QCompileError
from qcompile.frontend import import_onnx
from tests.frontend.onnx_models import model, node, weights


def message(source, input_shapes=None):
    with pytest.raises(QCompileError) as caught:
        import_onnx(source, input_shapes)
    return str(caught.value)


def relu(shape):
    return model([node("Relu", "x")], {"x": shape})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(model([node("Add", "x w")], {"x": (50,)}, constants={"w": weights(50)}), path)
    return path


def test_missing_file():
    assert message("nowhere.onnx") == "nowhere.onnx: no such file; check the path of the ONNX model"


def test_folder(tmp_path):
    assert message(tmp_path) == f"{tmp_path}: is a folder, not a file; give the .onnx file itself"


def test_empty_file(file):
    file.write_bytes(b"")
    assert message(file) == f"{file}: the file is empty; export or copy the model again"


@pytest.mark.parametrize("content", [b"hello, world " * 9, b"\x89PNG\r\n\x1a\n" + bytes(50)], ids=["text", "image"])
def test_not_onnx(file, content):
    file.write_bytes(content)
    assert message(file) == f"{file}: not an ONNX file, or a truncated one; export or copy the model again"


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_file(file, part):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    assert message(file) == f"{file}: not an ONNX file, or a truncated one; export or copy the model again"


def test_another_protobuf(file):
    file.write_bytes(onnx.TensorProto(dims=[3], data_type=1).SerializeToString())
    assert message(file).startswith(f"{file}: not an ONNX file")


def test_external_data_missing_or_short(tmp_path):
    path, data = tmp_path / "m.onnx", tmp_path / "m.bin"
    proto = model([node("Add", "x w")], {"x": (50,)}, constants={"w": weights(50)})
    onnx.save(proto, path, save_as_external_data=True, location="m.bin", size_threshold=0)
    data.write_bytes(data.read_bytes()[:-4])
    assert message(path) == f"{path}: w: its external data 'm.bin' is truncated; copy the data file again"
    data.unlink()
    assert message(path) == f"{path}: w: its external data 'm.bin' is missing; put 'm.bin' beside the model"


def test_unknown_operator():
    proto = model([node("Frobnicate", "x", name="f")], {"x": (3,)})
    proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 3
    assert message(proto) == (
        "f (Frobnicate): operator Frobnicate is not supported; cut the model before this node, or export it without"
    )


def test_checker():
    proto = relu((3,))
    proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 3
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("slope", 3))
    assert message(proto) == (
        "tiny: the ONNX checker refuses it: Unrecognized attribute: slope for operator Relu; "
        "export the model again, or mend it"
    )


def test_strings():
    words = model([node("StringNormalizer", "x")], {"x": (3,)}, dtypes={"x": np.str_, "y": np.str_})
    assert message(words) == "tiny: input x: is not a tensor of numbers; only numbers can be computed with"


def test_empty_proto():
    assert message(onnx.ModelProto()) == "model: the model has no graph; give an ONNX model"


def test_nodes_out_of_order_or_without_source():
    proto = model([node("Relu", "ghost", name="r")], {"x": (3,)})
    assert message(proto) == "r (Relu): nothing computes its input 'ghost'; mend or re-export the model"


def test_unknown_domain():
    frob = node("Frob", "x", name="f", domain="my.ops")
    assert message(model([frob], {"x": (3,)}, domains=["my.ops"])) == (
        "f (Frob): operator Frob of domain my.ops is not supported; "
        "export the model with standard operators (known: ONNX only)"
    )


@pytest.mark.parametrize("opset", [3, 99])
def test_unsupported_opset(opset):
    newest = onnx.defs.onnx_opset_version()
    text = message(model([node("Relu", "x")], {"x": (3,)}, opset=opset))
    assert text == (
        f"tiny: opset {opset} is not supported; convert it to an opset from 7 to {newest}: "
        "onnx.version_converter.convert_version"
    )


def test_operator_without_converter():
    proto = model([node("StringNormalizer", "x", name="s")], {"x": (3,)}, dtypes={"x": np.float32})
    assert message(proto) == (
        "s (StringNormalizer): operator StringNormalizer is not supported; "
        "cut the model before this node, or export it without"
    )


def test_data_dependent_shapes():
    remedy = "qcompile needs static shapes: cut the model before this node"
    proto = model([node("NonZero", "x", name="n")], {"x": (3,)}, dtypes={"y": np.int64})
    assert message(proto) == f"n (NonZero): the shape of its result depends on the data; {remedy}"
    proto = model([node("Reshape", "x s", name="r")], {"x": (4,), "s": (2,)}, dtypes={"s": np.int64})
    assert message(proto) == (
        "r (Reshape): its shape (s) is computed from the data; "
        "qcompile needs static shapes: make it a constant, or cut the model before this node"
    )


def test_node_that_does_not_fit_its_input():
    advice = "check its attributes and input shapes, or cut the model before this node"
    proto = model([node("MatMul", "x w", name="m")], {"x": (1, 4)}, constants={"w": weights(3, 3)})
    assert message(proto) == (
        "m (MatMul): cannot be imported with inputs of 1x4, 3x3: "
        f"The reduction dimensions of 4 and 3 are not equal; {advice}"
    )
    proto = model([node("Tanh", "x", name="t")], {"x": (2,)}, dtypes={"x": np.int32})
    assert message(proto) == (
        "t (Tanh): cannot be imported with inputs of 2: relax.tanh requires the input tensor to have float dtype. "
        f"However, the given input dtype is T.int32; {advice}"
    )
    proto = model([node("DepthToSpace", "x", name="d", blocksize=2)], {"x": (1, 3, 4, 4)})
    assert message(proto) == "d (DepthToSpace): 1x3x4x4 does not divide into blocks of 2; mend or re-export the model"


def test_window_larger_than_the_image():
    proto = model([node("MaxPool", "x", name="p", kernel_shape=[3, 3])], {"x": (1, 1, 2, 5)})
    assert message(proto) == "p (MaxPool): its window of 3 is larger than its padded input of 2; give a larger input"


def test_baked_batch():
    proto = model([node("Reshape", "x s", name="r")], {"x": ("N", 12)}, constants={"s": [1, 3, 4]})
    assert message(proto, {"x": (2, 12)}) == (
        "r (Reshape): cannot reshape 2x12 to 1x3x4; the model bakes in another batch size: "
        "give that one (--input-shapes), or export with a dynamic batch"
    )


def test_training_mode_batch_norm():
    constants = {k: weights(3) ** 2 for k in "abcd"}
    proto = model(
        [node("BatchNormalization", "x a b c d", name="b", training_mode=1)], {"x": (1, 3, 2, 2)}, constants=constants
    )
    assert message(proto) == (
        "b (BatchNormalization): batch normalisation in training mode is not supported; export the model for inference"
    )


def test_no_traceback_of_tvm_for_any_failure():
    constants = {"s": weights(2), "b": weights(2)}
    group = node("GroupNormalization", "x s b", name="g", num_groups=2)
    assert message(model([group], {"x": (1, 3, 4, 4)}, constants=constants, opset=18)) == (
        "g (GroupNormalization): cannot be imported with inputs of 1x3x4x4, 2, 2: "
        "GroupNormalization requires num_groups to divide channel count, but got C=3 and num_groups=2; "
        "check its attributes and input shapes, or cut the model before this node"
    )


def test_equation_that_does_not_fit():
    text = message(model([node("Einsum", "x", name="e", equation="ij->kl")], {"x": (2, 3)}))
    assert text.startswith("e (Einsum): 'ij->kl' does not fit its inputs (")
