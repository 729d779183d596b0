"""What stayed in float32, and why: for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm import relax
from tvm.ir import GlobalVar, IRModule

from qcompile import graph, ops
from qcompile.passes.base import dtype_of, op_name
from qcompile.passes.layer_names import layer_name
from qcompile.passes.movement import moves
from qcompile.plan import QuantPlan


@dataclass(frozen=True, slots=True)
class Island:
    """A float operator of the integer form.

    name: its variable. op: "nn.layer_norm", or of a composite the specification's name ("conv2d"). node: its ONNX node.
    reason: why it is not integer.
    """

    name: str
    op: str
    node: str
    reason: str


def islands(module: IRModule, plan: QuantPlan, layers: Mapping[str, str] | None = None) -> tuple[Island, ...]:
    """Every operator that computes in float32, in order; what only moves float32 data is left out.

    module: in integer form. layers: variable -> ONNX node.
    """
    found = []
    for var, value in graph.read(module).bindings:
        op = _float_operator(var, value, module)
        if op is None:
            continue
        layer = plan.layers.get(var.name)
        reason = layer.why if layer is not None and not layer.codes else ""
        if layer is not None and layer.codes:
            reason = f"planned as {layer.format}, but no pass folds it"
        found.append(Island(var.name, op, layer_name(var.name, layers or {}), reason or f"no integer form of {op}"))
    return tuple(found)


def is_kernel(value: relax.Expr) -> bool:
    """Whether ``value`` calls a kernel that the frontend made: a recurrent layer, whose results are a tuple."""
    return isinstance(value, relax.Call) and op_name(value) == "call_tir"


def kernel_name(call: relax.Call) -> str:
    """ "lstm", of the function "lstm_0"."""
    name: str = call.args[0].name_hint
    return name.rpartition("_")[0]


def _float_operator(var: relax.Var, value: relax.Expr, module: IRModule) -> str | None:
    """The name of an operator from float32 to float32, None for anything else."""
    if is_kernel(value):
        return kernel_name(value)
    if not isinstance(value, relax.Call) or not isinstance(var.ty, relax.TensorType) or moves(value):
        return None
    if op_name(value) in ("quantize", "dequantize", "concat"):
        return None
    tensors = [a for a in value.args if isinstance(a.ty, relax.TensorType)]
    if dtype_of(var) != "float32" or any(dtype_of(t) in ("uint8", "int8", "float16") for t in tensors):
        return None
    if isinstance(value.op, GlobalVar):
        spec = ops.spec_of(module[value.op]) if isinstance(module[value.op], relax.Function) else None
        if getattr(spec, "weights", "float32") != "float32":
            return None  # in a format of its own, not left in float32
        return spec.op if spec is not None else value.op.name_hint
    return op_name(value)
