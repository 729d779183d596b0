from __future__ import annotations

import logging

import numpy as np
import pytest
from tvm import relax

from qcompile import graph, ops
from qcompile.passes.fold_weighted import fold_weighted
from qcompile.passes.quantized import QuantizedConstant, dequantize, dequantize_constant, quantize
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import assert_within_a_step, integer_of, kinds, plan_of, qdq_of, specs_of

op = relax.op
Q, R = ops.Affine(0.02, 77), ops.Affine(0.03, 12)

LAYERS = {
    "conv": (lambda x: op.nn.conv2d(x, weight(6, 4, 3, 3), padding=(1, 1)), 6, (1, 4, 6, 6)),
    "batch": (lambda x: op.nn.conv2d(x, weight(6, 4, 3, 3), padding=(1, 0, 2, 1)), 6, (3, 4, 6, 6)),
    "strided": (lambda x: op.nn.conv2d(x, weight(6, 4, 3, 3), strides=(2, 1), dilation=(1, 2)), 6, (1, 4, 8, 8)),
    "groups": (lambda x: op.nn.conv2d(x, weight(6, 2, 3, 3), groups=2), 6, (1, 4, 6, 6)),
    "depthwise": (lambda x: op.nn.conv2d(x, weight(4, 1, 3, 3), groups=4), 4, (1, 4, 6, 6)),
    "sequence": (lambda x: op.nn.conv1d(x, weight(6, 4, 3), strides=2, padding=(2, 1)), 6, (2, 4, 9)),
    "transpose": (lambda x: op.nn.conv2d_transpose(x, weight(4, 6, 3, 3), strides=(2, 2)), 6, (1, 4, 5, 5)),
    "transpose groups": (lambda x: op.nn.conv2d_transpose(x, weight(4, 3, 3, 3), groups=2), 6, (1, 4, 5, 5)),
    "sequence transpose": (lambda x: op.nn.conv1d_transpose(x, weight(4, 6, 3), strides=2, padding=1), 6, (2, 4, 9)),
    "dense": (lambda x: op.matmul(x, weight(8, 6)), 6, (5, 8)),
    "dense of rank 3": (lambda x: op.matmul(x, weight(8, 6)), 6, (2, 5, 8)),
}


def layer(make, channels, shape, activation=None, bias=True, residual=False):
    """x -> layer -> [bias] -> [residual x2] -> [activation] -> a layer that wants codes."""

    def write(b, x, *more):
        y = b.emit(make(x), "product")
        if bias:
            flat = y.ty.shape[-1] == channels and int(y.ty.shape[1]) != channels
            vector = (channels,) if flat or len(y.ty.shape) == 2 else (1, channels, *[1] * (len(y.ty.shape) - 2))
            y = b.emit(op.add(y, weight(*vector)), "biased")
        if more:
            y = b.emit(op.add(y, more[0]), "sum")
        if activation:
            y = b.emit(activation(y), "y")
        return [b.emit(op.matmul(y, weight(int(y.ty.shape[-1]), 3)), "wants codes")]

    return module(write, x=shape, **({"x2": shape_after(make, shape)} if residual else {}))


def shape_after(make, shape):
    normal = relax.BlockBuilder().normalize(make(relax.Var("x", relax.TensorType(shape, "float32"))))
    return tuple(int(d) for d in normal.ty.shape)


def last_of_chain(mod):
    made = {v.name for v, _ in graph.read(mod).bindings}
    return next(name for name in ("y", "sum", "biased", "product") if name in made)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
def test_every_layer_is_one_composite_within_a_step(name, bias):
    mod = layer(*LAYERS[name], activation=op.nn.relu if bias else None, bias=bias)
    plan = plan_of(mod)
    result = integer_of(mod, plan)
    assert kinds(result) == ["quantize", specs_of(result)[0].op.upper(), "DENSE"]
    assert_within_a_step(mod, plan, [last_of_chain(mod)])


def test_scaling_by_channel_is_a_depthwise_convolution():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(6, 4, 1, 1)), "c")
        s = b.emit(op.multiply(c, weight(1, 6, 1, 1)), "s")
        y = b.emit(op.add(s, weight(1, 6, 1, 1, seed=1)), "y")
        return [b.emit(op.nn.conv2d(y, weight(2, 6, 1, 1)), "wants codes")]

    mod = module(write, x=(2, 4, 5, 5))
    plan = plan_of(mod)
    spec = specs_of(integer_of(mod, plan))[1]
    assert isinstance(spec, ops.Conv2d) and spec.groups == 6
    assert_within_a_step(mod, plan, ["y"])


@pytest.mark.parametrize(
    "activation, clip", [(None, None), (op.nn.relu, (0, np.inf)), (lambda y: op.clip(y, 0, 1), (0, 1))]
)
def test_residual_and_activation(activation, clip):
    mod = layer(*LAYERS["conv"], activation=activation, residual=True)
    plan = plan_of(mod)
    spec = specs_of(integer_of(mod, plan))[0]
    assert spec.epilogue.residual == plan.tensors["x2"].affine and spec.epilogue.clip == clip
    assert_within_a_step(mod, plan, [last_of_chain(mod)])


def test_a_float_result_takes_a_float_residual():
    def write(b, x, r):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        return [b.emit(op.add(c, r), "y")]

    spec = specs_of(integer_of(module(write, x=(1, 4, 5, 5), r=(1, 4, 5, 5))))[0]
    assert spec.epilogue.out is None and spec.epilogue.residual_is_float and spec.x is not None


def test_the_weight_stands_as_the_kernel_wants_it():
    mod = module(lambda b, x: [b.emit(op.matmul(x, weight(8, 6)), "y")], x=(5, 8))
    result = integer_of(mod)
    call = graph.read(result).bindings[-1][1]
    assert [tuple(map(int, a.ty.shape)) for a in call.args[1:]] == [(6, 8), (6,), (6,)]
    assert [str(a.ty.dtype) for a in call.args[1:]] == ["int8", "int32", "float32"]


def test_the_layer_is_named_after_its_node():
    mod = layer(*LAYERS["conv"], activation=op.nn.relu)
    result = integer_of(mod)
    call = next(v for _, v in graph.read(result).bindings if isinstance(v, relax.Call) and hasattr(v.op, "name_hint"))
    assert ops.layer_of(result[call.op]) == "node of product"


def by_hand(weight_codes, weight_scale, zero_point=0, bias=None, out=R):
    """A dense layer in QDQ form."""

    def write(b, x):
        d = b.emit(dequantize(b.emit(quantize(x, Q), "x.q"), Q), "x.dq")
        zeros = np.full(weight_scale.shape, zero_point, np.int8)
        w = b.emit(dequantize_constant(QuantizedConstant(weight_codes, weight_scale, zeros, 1)), "w")
        y = b.emit(op.matmul(d, w), "y")
        if bias is not None:
            y = b.emit(op.add(y, b.emit(dequantize_constant(bias), "b")), "z")
        return [b.emit(quantize(y, out), "y.q")]

    return module(write, x=(2, len(weight_codes)))


CODES, SCALE = np.array([[1, -2], [3, 127]], np.int8), np.array([0.1, 0.2], np.float32)


def int32(codes, scale):
    return QuantizedConstant(np.array(codes, np.int32), np.array(scale, np.float32), np.zeros(2, np.int32), 0)


def test_a_layer_by_hand_folds():
    right = int32([5, -7], np.float64(SCALE) * Q.scale)
    assert kinds(fold_weighted()(by_hand(CODES, SCALE, bias=right))) == ["quantize", "DENSE"]


@pytest.mark.parametrize(
    "mod, reason",
    [
        (by_hand(CODES, SCALE, zero_point=3), "the weight is not symmetric"),
        (by_hand(CODES, SCALE, bias=int32([5, -7], [0.1, 0.1])), "the bias does not have the scale of the sum"),
        (by_hand(CODES, SCALE, bias=int32([2**31 - 1, 0], SCALE * 0.02)), "its sums may exceed int32"),
    ],
)
def test_refusals(mod, reason, caplog):
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        result = fold_weighted()(mod)
    assert kinds(result) == kinds(mod) and reason in caplog.text


def test_a_float_layer_is_refused(caplog):
    mod = qdq_of(module(lambda b, x: [b.emit(op.matmul(x, weight(8, 6)), "y")], x=(5, 8)), exclude=["y"])
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        assert kinds(fold_weighted()(mod)) == ["matmul"]
    assert "reads a float32 tensor" in caplog.text
