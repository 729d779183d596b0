"""What no row of ``lower_cuda_layers`` takes becomes PrimFuncs, fused by TVM, for ``lower_cuda_functions``.

::

    m = matmul(q, k)                          t = call_tir(fused_matmul_multiply_add, (q, k, 8.0, mask))
    s = add(multiply(m, 0.125), mask)   ->    y = call_tir(softmax, (t,))
    y = softmax(s)                            c = conv2d_0(...)                         composites are as they were

Float composites that are one operator (a sum, a product) are opened first, so that they fuse, too. What follows a
product, a softmax or a normalization element by element is fused into it; what precedes a sum or mean, into that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tvm
from tvm import relax, te, tirx, topi
from tvm.ir import GlobalVar, IRModule

from qcompile import graph, ops
from qcompile.errors import QCompileError
from qcompile.passes import island_math
from qcompile.passes.base import array, dtype_of, op_name, shape_of
from qcompile.passes.fused_names import names_after_fusion
from qcompile.passes.legalize_islands import renamed
from qcompile.targets.kernels import float_functions

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

_CODES = ("uint8", "int8")
_FOLLOWED = {"op_pattern": 4}  # TVM's pattern of what element-by-element operators may follow in one function


def legalize_cuda(module: IRModule, names: Iterable[str], kept: Callable[[relax.Call], bool]) -> IRModule:
    """``module`` in integer form with call_tir for its operators; composites stay, and calls that are ``kept``.

    names: of the operators that some calls of are kept.

    Raises ``QCompileError`` for a result whose shape is not static.
    """
    module = _open_float_composites(module)
    composites = {
        g: f for g, f in module.functions_items() if isinstance(f, relax.Function) and g.name_hint != graph.MAIN
    }
    rest = {g: f for g, f in module.functions_items() if g not in composites}
    unfused = tvm.ir.transform.Sequential(
        [
            relax.transform.LegalizeOps(_legalizations(names, kept), skip_ops=["relax.reshape"]),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.DeadCodeElimination([graph.MAIN]),
        ]
    )(IRModule(rest))
    for var, _ in graph.read(unfused).bindings:
        if not _is_static(var.ty):
            raise QCompileError(
                f"the shape of its result is not static: {var.ty}", node=var.name, remedy="fix input shapes"
            )
    grouped = relax.transform.FuseOps()(unfused)
    names = names_after_fusion(unfused, grouped)
    fused = renamed(relax.transform.FuseTIR()(grouped), names)
    return IRModule({**dict(fused.functions_items()), **composites}, attrs=module.attrs)


def _is_static(ty: tvm.ir.Type) -> bool:
    fields = ty.fields if isinstance(ty, tvm.ir.TupleType) else [ty]
    shapes = [getattr(field, "shape", None) for field in fields]
    return all(isinstance(s, relax.ShapeExpr) and all(isinstance(e, tirx.IntImm) for e in s) for s in shapes)


def _open_float_composites(module: IRModule) -> IRModule:
    """Sums, differences and products of floats as plain operators."""
    old = graph.read(module)
    builder = graph.MainBuilder(old.params, module)
    new: dict[relax.Var, relax.Expr] = {}
    for var, value in old.bindings:
        value, bounds = _opened(module, graph.substitute(value, new))
        if bounds is not None:
            value = builder.emit(value, f"{var.name}~{op_name(value)}")
            value = relax.op.clip(value, *bounds)
        new[var] = builder.emit(value, var.name)
    return builder.module([graph.substitute(output, new) for output in old.outputs])


def _opened(module: IRModule, value: relax.Expr) -> tuple[relax.Expr, tuple[float, float] | None]:
    """The operator in a composite, and the bounds of its result if it has some."""
    if not isinstance(value, relax.Call) or not isinstance(value.op, GlobalVar):
        return value, None
    spec = ops.spec_of(module[value.op])
    if not isinstance(spec, ops.Binary) or spec.a is not None or spec.b is not None:
        return value, None
    if spec.epilogue != ops.Epilogue(None, spec.epilogue.clip):
        return value, None
    return getattr(relax.op, spec.kind)(*value.args), spec.epilogue.clip


def _legalizations(names: Iterable[str], kept: Callable[[relax.Call], bool]) -> dict[str, Legalize]:
    table: dict[str, Legalize] = {
        f"relax.{name}": _if_float(_function(name.rpartition(".")[2], scalar))
        for name, scalar in float_functions.FUNCTIONS.items()
    }
    table["relax.nn.softmax"] = _if_float(_softmax)
    table["relax.nn.layer_norm"] = _if_float(_layer_norm)
    table["relax.quantize"] = _quantize
    table["relax.dequantize"] = _dequantize
    table["relax.argmax"] = table["relax.argmin"] = _first_extreme
    for name in names:
        table[f"relax.{name}"] = _unless_kept(kept, table.get(f"relax.{name}", _default))
    return table


def _default(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    legalize = call.op.get_attr("FLegalize")
    return legalize(builder, call) if legalize is not None else call


def _unless_kept(kept: Callable[[relax.Call], bool], legalize: Legalize) -> Legalize:
    return lambda builder, call: call if kept(call) else legalize(builder, call)


def _if_float(legalize: Legalize) -> Legalize:
    def guarded(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        return (legalize if all(dtype_of(a) == "float32" for a in call.args) else _default)(builder, call)

    return guarded


def _function(name: str, scalar: Callable[[Any], Any]) -> Legalize:
    compute = island_math.elementwise(scalar)
    return lambda builder, call: builder.call_te(compute, call.args[0], primfunc_name_hint=name)


def _softmax(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    named: dict[str, Any] = {"primfunc_name_hint": "softmax", "primfunc_attrs": _FOLLOWED}
    return builder.call_te(island_math.softmax, call.args[0], int(call.attrs.axis), **named)


def _layer_norm(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    named: dict[str, Any] = {"primfunc_name_hint": "layer_norm", "primfunc_attrs": _FOLLOWED}
    return builder.call_te(topi.nn.layer_norm, *call.args, axis=call.attrs.axes, epsilon=call.attrs.epsilon, **named)


def _first_extreme(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The first position of the largest element, of the smallest: two reductions, each in any order."""
    x, find, position = call.args[0], op_name(call), dtype_of(call)
    shape, keepdims = shape_of(x), bool(call.attrs.keepdims)
    axis = None if call.attrs.axis is None else int(call.attrs.axis) % len(shape)

    def positions(data: te.Tensor) -> te.Tensor:
        flat = data if axis is not None else topi.reshape(data, (data_size,))
        along = axis or 0
        best = (topi.max if find == "argmax" else topi.min)(flat, along, keepdims=True)

        def position_of(*index: Any) -> Any:
            at = [tirx.const(0, "int32") if a == along else i for a, i in enumerate(index)]
            here = tirx.Cast(position, index[along])
            return tirx.Select(flat(*index) == best(*at), here, tirx.const(int(flat.shape[along]) - 1, position))

        found = topi.min(te.compute(flat.shape, position_of), along, keepdims=keepdims and axis is not None)
        return topi.reshape(found, shape_of(call)) if keepdims and axis is None else found

    data_size = 1
    for extent in shape:
        data_size *= extent
    return builder.call_te(positions, x, primfunc_name_hint=find)


def _quantize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """As the oracle does it, to the bit: clipped before it is rounded, 0 for NaN."""
    x, dtype = call.args[0], dtype_of(call)
    if dtype_of(x) != "float32" or dtype not in _CODES:
        return _default(builder, call)
    low, high = (0, 255) if dtype == "uint8" else (-128, 127)

    def code(value: Any, scale: Any, zero: Any) -> Any:
        steps = _extern("float32", "number", _extern("float32", "quotient", value, scale))
        bounds = (tirx.Cast("float32", tirx.const(b, "int32") - zero) for b in (low, high))
        return tirx.Cast(dtype, _extern("int32", "to_code", steps, *bounds, zero))

    return _coded(builder, call, code, "quantize")


def _dequantize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    if dtype_of(call) != "float32" or dtype_of(call.args[0]) not in (*_CODES, "int32"):
        return _default(builder, call)

    def value(code: Any, scale: Any, zero: Any) -> Any:
        steps = tirx.Cast("int32", code) - zero
        return _extern("float32", "product", tirx.Cast("float32", steps), scale)

    return _coded(builder, call, value, "dequantize")


def _coded(builder: relax.BlockBuilder, call: relax.Call, element: Callable[..., Any], name: str) -> relax.Expr:
    """``element`` of x, scale and zero point, which are numbers in the text if they are one for all."""
    x, scale, zero = call.args
    axis = int(call.attrs.axis) % max(len(shape_of(x)), 1)
    scales, zeros = array(scale), array(zero)
    if scales is not None and zeros is not None and scales.size == zeros.size == 1:
        one = (tirx.const(float(scales.reshape(-1)[0]), "float32"), tirx.const(int(zeros.reshape(-1)[0]), "int32"))
        return builder.call_te(
            lambda t: te.compute(t.shape, lambda *i: element(t(*i), *one), name=name), x, primfunc_name_hint=name
        )

    def of_channel(parameter: te.Tensor, index: Any) -> Any:
        return parameter(index[axis]) if len(parameter.shape) else parameter()

    def compute(t: te.Tensor, s: te.Tensor, z: te.Tensor) -> te.Tensor:
        return te.compute(
            t.shape, lambda *i: element(t(*i), of_channel(s, i), tirx.Cast("int32", of_channel(z, i))), name=name
        )

    return builder.call_te(compute, x, scale, zero, primfunc_name_hint=name)


def _extern(dtype: str, function: str, *args: Any) -> Any:
    """A call of a function of ``targets/cuda/device``."""
    return tirx.call_pure_extern(dtype, function, *args)
