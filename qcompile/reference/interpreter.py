"""``run``: a module in float, QDQ or integer form, one binding after the other, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, GlobalVar, IRModule

from qcompile import graph, ops
from qcompile.errors import QCompileError, nearest
from qcompile.reference import convolution, elementwise, islands, movement, pooling, qdq

COMPOSITES: dict[type, Callable[..., np.ndarray]] = {
    ops.Conv2d: convolution.conv2d,
    ops.ConvTranspose2d: convolution.conv_transpose2d,
    ops.Dense: convolution.dense,
    ops.Binary: elementwise.binary,
    ops.Lookup: elementwise.lookup,
    ops.Requantize: elementwise.requantize,
    ops.AvgPool2d: pooling.avg_pool2d,
    ops.Mean: pooling.mean,
    ops.Concat: elementwise.concat,
    ops.ResizeLinear: pooling.resize_linear,
    ops.Softmax: elementwise.softmax,
    ops.ChannelShuffle: elementwise.channel_shuffle,
    ops.Gather: elementwise.gather,
}
OPERATORS: dict[str, Callable[..., Any]] = {
    **movement.FUNCTIONS,
    "relax.quantize": qdq.quantize,
    "relax.dequantize": qdq.dequantize,
}


def run(module: IRModule, feeds: Mapping[str, np.ndarray], capture: bool = False) -> dict[str, Any]:
    """Evaluates ``main``.

    Parameters
    ----------
    module: ``main`` as ``qcompile.graph`` reads it, and the composite functions that it calls.
    feeds: an array for each parameter, by name, of its shape and dtype.
    capture: return every variable, in order, instead of the outputs.

    Returns
    -------
    Arrays by variable name, in the order of ``main``'s result. A variable of tuple type (split) has a tuple of arrays.
    A constant that ``main`` returns goes by its position, "output0".

    Raises
    ------
    QCompileError: for feeds that do not fit, an unknown composite, or a sum beyond int32; names the layer.
    """
    main = graph.read(module)
    values: dict[relax.Var, Any] = {p: _feed(p, feeds) for p in main.params}
    for name in feeds:
        if name not in {p.name for p in main.params}:
            raise QCompileError(
                "not an input of the model", node=name, remedy=nearest(name, [p.name for p in main.params])
            )
    for var, value in main.bindings:
        values[var] = _evaluate(value, values, module)
    if capture:
        return {var.name: value for var, value in values.items()}
    return {
        out.name if isinstance(out, relax.Var) else f"output{i}": _value(out, values)
        for i, out in enumerate(main.outputs)
    }


def composite(function: relax.Function, args: tuple[np.ndarray, ...]) -> np.ndarray:
    """The result of a composite function, of the dtype and shape that its type declares."""
    layer = ops.layer_of(function)
    try:
        spec = ops.spec_of(function)
    except KeyError as error:
        raise QCompileError(
            f"the oracle knows no operator {error}", node=layer, remedy=nearest(str(error.args[0]), ops.SPECS)
        ) from None
    try:
        result = COMPOSITES[type(spec)](spec, *args)
    except OverflowError as error:
        raise QCompileError(
            str(error), node=layer, remedy="quantize its weights with a larger scale, or keep the layer in float"
        ) from None
    declared = function.ret_ty
    if result.dtype != str(declared.dtype) or result.shape != tuple(int(extent) for extent in declared.shape):
        raise QCompileError(
            f"{spec.op} computes {result.dtype}{result.shape}, its function declares {declared.dtype}{declared.shape}",
            node=layer,
        )
    return result


def _evaluate(value: relax.Expr, values: Mapping[relax.Var, Any], module: IRModule) -> Any:
    if not isinstance(value, relax.Call):
        return _value(value, values)
    args = tuple(_value(arg, values) for arg in value.args)
    if isinstance(value.op, GlobalVar):
        function = module[value.op]
        if not isinstance(function, relax.Function) or not function.attrs or ops.ATTR_SPEC not in function.attrs:
            raise QCompileError(
                "a function without a spec", node=value.op.name_hint, remedy="the oracle runs the form before lowering"
            )
        return composite(function, args)
    name = value.op.name
    if name == "relax.astype" and "float" in f"{args[0].dtype}" and "float" in str(value.attrs.dtype):
        return args[0].astype(str(value.attrs.dtype))
    if name == "relax.image.resize2d" and not movement.is_nearest_resize(value):
        return islands.evaluate(value, args)
    if name in OPERATORS:
        return OPERATORS[name](value, *args)
    return islands.evaluate(value, args, module)


def _value(expr: relax.Expr, values: Mapping[relax.Var, Any]) -> Any:
    """A leaf, tuple or tuple field: an array, a tuple, or the number that an operator takes as an argument."""
    if isinstance(expr, relax.Var):
        return values[expr]
    if isinstance(expr, GenericConst):
        return expr.value.numpy()
    if isinstance(expr, relax.Tuple):
        return tuple(_value(field, values) for field in expr.fields)
    if isinstance(expr, relax.TupleGetItem):
        return _value(expr.tuple_value, values)[expr.index]
    if isinstance(expr, relax.ShapeExpr):
        return tuple(int(extent) for extent in expr.values)
    if isinstance(expr, tvm.tirx.FloatImm):
        return float(expr.value)
    if isinstance(expr, tvm.tirx.IntImm):
        return int(expr.value)
    return expr


def _feed(param: relax.Var, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    shape, dtype = tuple(int(extent) for extent in param.ty.shape), str(param.ty.dtype)
    if param.name not in feeds:
        raise QCompileError("no value given for this input", node=param.name, remedy=f"give {dtype}{shape}")
    value = np.asarray(feeds[param.name])
    if value.shape != shape or value.dtype != dtype:
        raise QCompileError(
            f"the value given is {value.dtype}{value.shape}", node=param.name, remedy=f"give {dtype}{shape}"
        )
    return value
