"""Relax operators whose legalization by TVM is replaced: products, float functions, softmax, and views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, te, topi

from qcompile.passes import island_math
from qcompile.passes.base import dtype_of, shape_of
from qcompile.targets.kernels import float_functions
from qcompile.targets.kernels.matmul_f32 import matmul_f32
from qcompile.targets.kernels.scan import scan
from qcompile.targets.kernels.scatter import COMBINE, scatter_elements, scatter_nd
from qcompile.targets.kernels.sort import scratch_elements, sort
from qcompile.targets.target import Target

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

# TVM's fusion pattern "reduction": broadcast operators before it are fused into it, nothing after it. The default for
# functions of several loop nests fuses what comes after; scale, mask and residual come before.
_REDUCTION = {"op_pattern": 3}


def legalizations(target: Target) -> dict[str, Legalize]:
    """For ``relax.transform.LegalizeOps``. What is not float32 falls back to TVM's own legalization."""
    table: dict[str, Legalize] = {
        name: _float32_only(_tensor_function(name.split(".")[-1], island_math.elementwise(scalar)))
        for name, scalar in float_functions.FUNCTIONS.items()
    }
    table["nn.softmax"] = _float32_only(_softmax)
    table["nn.layer_norm"] = _float32_only(_layer_norm)
    table["matmul"] = _float32_only(_matmul(target))
    table["permute_dims"] = _permute_dims
    table["topk"] = _topk
    table["argsort"] = _argsort
    table["sort"] = _sort
    table["cumsum"] = _scan
    table["cumprod"] = _scan
    table["scatter_elements"] = _scatter_elements
    table["scatter_nd"] = _scatter_nd
    for name in ("squeeze", "expand_dims", "flatten"):
        table[name] = _as_reshape
    return {f"relax.{name}": legalize for name, legalize in table.items()}


def _default(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return call.op.get_attr("FLegalize")(builder, call)


def _float32_only(legalize: Legalize) -> Legalize:
    def guarded(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        is_float32 = all(dtype_of(arg) == "float32" for arg in call.args)
        return (legalize if is_float32 else _default)(builder, call)

    return guarded


def _tensor_function(name: str, function: Callable[[te.Tensor], te.Tensor]) -> Legalize:
    return lambda builder, call: builder.call_te(function, call.args[0], primfunc_name_hint=f"f32_{name}")


def _softmax(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis = int(call.attrs.axis)
    return builder.call_te(
        island_math.softmax, call.args[0], axis, primfunc_name_hint="softmax", primfunc_attrs=_REDUCTION
    )


def _layer_norm(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    options: dict[str, Any] = {"axis": call.attrs.axes, "epsilon": call.attrs.epsilon}
    return builder.call_te(
        topi.nn.layer_norm, *call.args, **options, primfunc_name_hint="layer_norm", primfunc_attrs=_REDUCTION
    )


def _matmul(target: Target) -> Legalize:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        a, b = (shape_of(arg) for arg in call.args)
        if len(a) < 2 or len(b) < 2 or 0 in (*a, *b):
            return _default(builder, call)
        kernel = matmul_f32(a[-2], a[-1], b[-1], a[:-2], b[:-2], False, target)
        return relax.call_tir(builder.add_func(kernel, "matmul_f32"), list(call.args), call.ty)

    return legalize


def _as_reshape(_: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return relax.op.reshape(call.args[0], call.ty.shape)


def _permute_dims(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A view where only axes of extent 1 move."""
    shape = shape_of(call.args[0])
    axes = [int(a) for a in call.attrs.axes] if call.attrs.axes is not None else list(reversed(range(len(shape))))
    moved = [a % len(shape) for a in axes if shape[a] != 1]
    return _as_reshape(builder, call) if moved == sorted(moved) else _default(builder, call)


# TVM legalizes sorts and scans in a pass of their own, DispatchSortScan, because of GPUs.


def _topk(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    kind, positions = call.attrs.ret_type, str(call.attrs.dtype)
    return _sorted(builder, call, bool(call.attrs.largest), kind != "indices", positions if kind != "values" else "")


def _argsort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return _sorted(builder, call, bool(call.attrs.descending), False, str(call.attrs.dtype))


def _sort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return _sorted(builder, call, bool(call.attrs.descending), True, "")


def _sorted(
    builder: relax.BlockBuilder, call: relax.Call, descending: bool, values: bool, positions: str
) -> relax.Expr:
    data, types = call.args[0], getattr(call.ty, "fields", [call.ty])
    shape, axis = shape_of(data), int(call.attrs.axis) % len(shape_of(data))
    keep = int(types[0].shape[axis])
    kernel = sort(shape, axis, dtype_of(data), keep, descending, values, positions)
    scratch = relax.TensorType((scratch_elements(shape[axis]),), "int32")
    found = relax.call_tir(builder.add_func(kernel, "sort"), [data], [*types, scratch])
    return found if isinstance(call.ty, relax.TupleType) else relax.TupleGetItem(builder.emit(found), 0)


def _scan(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Along one axis; without an axis, over the flattened tensor."""
    data, kind = call.args[0], call.op.name.removeprefix("relax.")
    shape, axis = shape_of(call), call.attrs.axis
    if axis is None:
        data, axis = builder.emit(relax.op.reshape(data, shape)), 0
    kernel = scan(kind, shape, int(axis) % len(shape), dtype_of(data), dtype_of(call), bool(call.attrs.exclusive))
    return relax.call_tir(builder.add_func(kernel, kind), [data], call.ty)


# TVM's own kernels of scatters do not compile beside others: their parallel loops are annotated as for an older TVM.


def _scatter_elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    data, indices, _ = call.args
    shape, reduction = shape_of(data), str(call.attrs.reduction)
    if reduction not in COMBINE:
        return _default(builder, call)
    axis = int(call.attrs.axis) % len(shape)
    kernel = scatter_elements(shape, shape_of(indices), axis, dtype_of(data), dtype_of(indices), reduction)
    return relax.call_tir(builder.add_func(kernel, "scatter_elements"), list(call.args), call.ty)


def _scatter_nd(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    data, indices, _ = call.args
    reduction = str(call.attrs.reduction)
    if reduction not in COMBINE:
        return _default(builder, call)
    kernel = scatter_nd(shape_of(data), shape_of(indices), dtype_of(data), dtype_of(indices), reduction)
    return relax.call_tir(builder.add_func(kernel, "scatter_nd"), list(call.args), call.ty)
