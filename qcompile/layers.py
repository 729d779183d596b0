"""What became of each layer, for manifests and reports: format, kernel, arithmetic, and why a layer stayed float."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

from tvm import relax
from tvm.ir import IRModule, TupleType

from qcompile import graph, ops
from qcompile.formats import format_with
from qcompile.manifest import KernelCall, LayerInfo, ScheduleInfo
from qcompile.model import Model
from qcompile.passes.assign_storage import called_spec
from qcompile.passes.base import dtype_of, op_name, shape_of
from qcompile.passes.emit_entry import Entry
from qcompile.passes.islands import is_kernel, islands, kernel_name
from qcompile.passes.layer_names import layer_name
from qcompile.passes.lower_layers import KernelNote, kernel_notes
from qcompile.plan import QuantPlan

_CODES = {"uint8", "int8"}


def describe_layers(
    model: Model, plan: QuantPlan, integer: IRModule, notes: Sequence[KernelNote]
) -> tuple[LayerInfo, ...]:
    """One row a binding of the integer form, in order of execution. notes: of the kernels that it was lowered to."""
    kernels = {note.output: note for note in notes}
    reasons = {island.name: island.reason for island in islands(integer, plan)}
    nodes = {name: layer.node for name, layer in model.layers.items()}
    rows = []
    for var, value in graph.read(integer).bindings:
        kernel = is_kernel(value)
        if not isinstance(value, relax.Call) or (isinstance(var.ty, TupleType) and not kernel):
            continue
        spec = called_spec(integer, value)
        tensors = [a for a in _operands(value) if isinstance(a, relax.Var) and not isinstance(a.ty, TupleType)]
        note = kernels.get(var.name)
        out = _output(spec)
        rows.append(
            LayerInfo(
                name=ops.layer_of(integer[value.op]) if spec else layer_name(var.name, nodes),
                op=spec.op if spec else kernel_name(value) if kernel else op_name(value),
                format=_format(
                    spec, {dtype_of(t) for t in (var, *_operands(value)) if isinstance(t.ty, relax.TensorType)}
                ),
                kernel=f"{note.op} {note.note}".strip() if note else "",
                schedule=note.schedule.source if note and note.schedule else "",
                inputs=tuple(shape_of(t) for t in tensors),
                output=_shape(var),
                macs=_macs(spec, value, var),
                scale=out.scale if out else None,
                zero_point=out.zero_point if out else None,
                reason=reasons.get(var.name, ""),
            )
        )
    return tuple(rows)


def calls_of(entry: Entry, lowered: IRModule) -> tuple[KernelCall, ...]:
    """The kernels of the entry function in order, with the layers that they compute."""
    layers = {note.output: note.layer for note in kernel_notes(lowered)}
    return tuple(KernelCall(step.kernel, layers.get(step.output, step.output)) for step in entry.steps)


def schedules_of(lowered: IRModule) -> tuple[ScheduleInfo, ...]:
    """The schedules of the layers whose kernels have knobs, in order of execution."""
    return tuple(note.schedule for note in kernel_notes(lowered) if note.schedule)


def _shape(var: relax.Var) -> tuple[int, ...]:
    """Of the tensor, or of the first of several."""
    fields = getattr(var.ty, "fields", None)
    return tuple(int(extent) for extent in fields[0].shape) if fields else shape_of(var)


def _operands(call: relax.Call) -> list[relax.Expr]:
    return [field for arg in call.args for field in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]


def _format(spec: ops.Spec | None, dtypes: Collection[str]) -> str:
    """The name of the format in which a layer ended up. dtypes: of its tensors and constants, as a table may be one."""
    if isinstance(spec, (ops.Conv2d, ops.ConvTranspose2d, ops.Dense)):
        return format_with(spec.activations, spec.weights).name
    if isinstance(spec, ops.Gather) and "float16" in dtypes:
        return format_with("float32", "float16").name
    grouped = isinstance(spec, ops.Gather) and spec.group > 0
    codes = not _CODES.isdisjoint(dtypes)
    weights = "int4" if grouped else "int8" if codes else "float32"
    return format_with("uint8" if codes else "float32", weights).name


def _output(spec: ops.Spec | None) -> ops.Affine | None:
    if spec is None:
        return None
    return spec.epilogue.out if hasattr(spec, "epilogue") else getattr(spec, "out", None)


def _macs(spec: ops.Spec | None, call: relax.Call, var: relax.Var) -> int:
    """Multiply-accumulates of one run, of layers with weights."""
    if isinstance(spec, (ops.Conv2d, ops.Dense)):
        return prod(shape_of(var)) * prod(shape_of(call.args[1])[1:])
    if isinstance(spec, ops.ConvTranspose2d):
        return prod(shape_of(call.args[0])) * prod(shape_of(call.args[1])[1:])
    if is_kernel(call):  # of every step, the state times the matrix (directions, state, columns)
        inputs, matrix = _operands(call)[1:3]
        return prod(shape_of(inputs)) * shape_of(matrix)[1]
    return 0
