"""Operators that move data against ONNX Runtime."""

import numpy as np
import pytest

from tests.frontend.onnx_models import check, model, node, operators, weights


def one(op, shape, *constants, opset=17, outputs="y", **attributes):
    """A model of one node whose inputs but the first are constants, None where absent."""
    named = {f"c{i}": np.asarray(c) for i, c in enumerate(constants) if c is not None}
    inputs = " ".join(["x", *(f"c{i}" if c is not None else "_" for i, c in enumerate(constants))])
    return model([node(op, inputs, outputs, **attributes)], {"x": shape}, outputs.split(), named, opset)


@pytest.mark.parametrize("want", [[0, -1], [4, 3, 2], [-1], [2, 0, 4, 1], [1, 24]])
def test_reshape(want):
    assert operators(check(one("Reshape", (2, 3, 4), want))) == ["reshape"]


@pytest.mark.parametrize("axis", [0, 1, 2, -1, 3])
def test_flatten(axis):
    check(one("Flatten", (2, 3, 4), axis=axis))


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze(opset):
    if opset == 11:
        nodes = [node("Squeeze", "x", "s", axes=[1, -1]), node("Unsqueeze", "s", "y", axes=[0, 3])]
        proto = model(nodes, {"x": (2, 1, 3, 1)}, opset=opset)
    else:
        nodes = [node("Squeeze", "x a", "s"), node("Unsqueeze", "s b", "y"), node("Squeeze", "x", "z")]
        proto = model(nodes, {"x": (2, 1, 3, 1)}, "yz", {"a": [1, -1], "b": [0, -1]}, opset)
    assert set(operators(check(proto))) == {"reshape"}


@pytest.mark.parametrize("perm", [None, [0, 2, 1], [0, 1, 2]])
def test_transpose(perm):
    check(one("Transpose", (2, 3, 4), **({} if perm is None else {"perm": perm})))


SLICES = {
    "plain": ([1], [3], [1], None),
    "negative": ([-3], [-1], [-1], None),
    "beyond the ends": ([0, -100], [1000, 2**62], [0, 1], None),
    "steps": ([1, 0], [4, 6], [1, 2], [2, 3]),
    "backwards": ([-1, 5], [-(2**62), 0], [1, 2], [-1, -2]),
    "all": ([0], [4], [1], [1]),
}


@pytest.mark.parametrize("case", SLICES)
def test_slice(case):
    check(one("Slice", (2, 4, 6), *SLICES[case]))


def test_slice_of_old_opsets():
    check(one("Slice", (2, 4, 6), opset=9, starts=[1, 0], ends=[4, 2], axes=[1, 2]))


def test_empty_slice_vanishes_in_concat():
    nodes = [node("Slice", "x a a b", "e"), node("Concat", "x e x", axis=1)]
    check(model(nodes, {"x": (2, 3)}, constants={"a": [1], "b": [1]}))


@pytest.mark.parametrize("opset, sizes", [(11, [1, 2]), (13, [1, 2]), (13, None)])
def test_split(opset, sizes):
    attributes = {"axis": -1} | ({"split": sizes} if opset == 11 else {})
    constants = [sizes] if opset == 13 and sizes else []
    check(one("Split", (2, 3 if sizes else 4), *constants, opset=opset, outputs="p q", **attributes))


def test_uneven_split_of_opset_18():
    check(one("Split", (7, 2), opset=18, outputs="p q r", num_outputs=3))


PADS = {
    "constant": ([0, 1, 0, 0, 2, 3], {}),
    "reflect": ([0, 1, 2, 0, 2, 1], {"mode": "reflect"}),
    "edge": ([0, 1, 2, 0, 2, 1], {"mode": "edge"}),
    "negative": ([0, -1, 2, 0, 0, -2], {}),
}


@pytest.mark.parametrize("case", PADS)
def test_pad(case):
    pads, attributes = PADS[case]
    check(one("Pad", (2, 4, 5), pads, np.float32(1.5), **attributes))


def test_pad_of_other_opsets():
    check(one("Pad", (2, 4), opset=10, pads=[0, 1, 1, 0], value=2.0))
    check(one("Pad", (2, 4), [1, 2], None, [1], opset=19, mode="wrap"))


GATHERS = {
    "one": (np.int64(-1), 1, ["strided_slice", "reshape"]),
    "every other": ([0, 2, 4], -1, ["strided_slice"]),
    "any": ([[0, 3], [-1, 1]], 2, ["take"]),
    "repeated": ([1, 1], 1, ["take"]),
}


@pytest.mark.parametrize("case", GATHERS)
def test_gather_of_constant_indices(case):
    indices, axis, expected = GATHERS[case]
    assert operators(check(one("Gather", (2, 3, 6), indices, axis=axis))) == expected


def test_embedding_with_negative_indices():
    proto = model([node("Gather", "t i")], {"i": (2, 3)}, constants={"t": weights(5, 4)}, dtypes={"i": np.int64})
    assert operators(check(proto, {"i": np.array([[0, -1, 4], [-5, 2, 2]])})) == ["take"]


def test_gather_elements_and_others():
    check(one("GatherElements", (2, 3), [[0, -1, 1], [1, 0, 0]], axis=0))
    check(one("GatherND", (2, 3, 4), [[0, 1], [1, 2]]))
    check(one("Tile", (2, 3), [2, 1]))
    check(one("Expand", (3, 1), [2, 1, 4]))
    check(one("Trilu", (4, 4), np.int64(1), upper=0))
    check(one("CumSum", (2, 4), np.int64(1)))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    check(one("DepthToSpace", (2, 12, 3, 2), blocksize=2, mode=mode))
    check(one("SpaceToDepth", (2, 3, 4, 6), blocksize=2))


@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 3, 4]])
@pytest.mark.parametrize(("batch", "time"), [(1, 0), (0, 1)])
def test_reverse_sequence(lengths, batch, time):
    shape = [2, 2, 5]
    shape[batch], shape[time] = 3, 4
    constants = {"n": np.array(lengths)}
    check(model([node("ReverseSequence", "x n", batch_axis=batch, time_axis=time)], {"x": shape}, constants=constants))


def test_casts_and_where():
    nodes = [
        node("Cast", "x", "i", to=7),
        node("Greater", "x z", "g"),
        node("Cast", "g", "f", to=1),
        node("Where", "g x z", "w"),
        node("CastLike", "i x", "back"),
    ]
    proto = model(
        nodes, {"x": (3, 4)}, ["i", "f", "w", "back"], {"z": np.float32([[0.1], [0], [-0.1]])}, dtypes={"i": np.int64}
    )
    check(proto, {"x": 3 * weights(3, 4)})


def test_arg_max_and_top_k():
    nodes = [node("ArgMax", "x", "a", axis=1), node("TopK", "x k", "v i", axis=-1)]
    check(model(nodes, {"x": (3, 7)}, ["a", "v", "i"], {"k": [2]}, dtypes={"a": np.int64, "i": np.int64}))


def test_dropout_and_identity_vanish():
    nodes = [
        node("Dropout", "x", "d"),
        node("Identity", "d", "i"),
        node("Relu", "i", "r"),
        node("Dropout", "r", "y mask"),
    ]
    imported = check(model(nodes, {"x": (2, 3)}))
    assert operators(imported) == ["relu"]


def test_shape_arithmetic_is_folded():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axes", "n1"),
        node("Concat", "n1 minus", "target", axis=0),
        node("Reshape", "x target", "r"),
        node("ConstantOfShape", "s", "z"),
        node("Expand", "r s3", "e"),
        node("Mul", "s two", "double"),
        node("Slice", "double zero1 end", "hw"),
        node("Size", "x", "size"),
    ]
    constants = {
        "zero": np.int64(0),
        "axes": [0],
        "minus": [-1],
        "s3": [1, 2, 12],
        "two": np.int64(2),
        "zero1": [0],
        "end": [2],
    }
    outputs = ["r", "z", "e", "hw", "size"]
    proto = model(nodes, {"x": ("N", 3, 4)}, outputs, constants, dtypes={"hw": np.int64, "size": np.int64})
    imported = check(proto, {"x": weights(2, 3, 4)}, {"x": (2, 3, 4)})
    assert operators(imported) == ["reshape", "broadcast_to"]
