"""Lowers the PrimFuncs of ``legalize_cuda``, and the operators that no loop nest is good for: sorts and scans."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tvm import relax, tirx
from tvm.ir import GenericConst, TupleType

from qcompile.passes.base import array, dtype_of, op_name, shape_of
from qcompile.targets.cuda import sort
from qcompile.targets.cuda.nest_kernels import steps_of
from qcompile.targets.cuda.nests import Nest, read_nests, shape_of_buffer
from qcompile.targets.cuda.serial import serial_kernel
from qcompile.targets.cuda.storage import Storage, plain

if TYPE_CHECKING:
    from qcompile.passes.lower_cuda import Buffer, CudaLowering


def call_tir(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    """Loop nests lie as their neighbours do; what is anything else is computed by one block, on plain tensors."""
    function, args = lowering.module[call.args[0]], list(call.args[1].fields)
    name = re.sub(r"\W", "_", call.args[0].name_hint).rstrip("0123456789")
    reads, writes = list(function.params[: len(args)]), list(function.params[len(args) :])
    nests = read_nests(function)
    if nests is None:
        _serially(lowering, var, function, args, name)
        return
    storages = dict(zip(reads, (_home(lowering, arg) for arg in args), strict=True))
    storages |= {
        b: lowering.home(var) if len(writes) == 1 else plain(shape_of_buffer(b), str(b.ty.dtype)) for b in writes
    }
    numbers = [(buffer, _number(arg)) for buffer, arg in zip(reads, args, strict=True)]
    constants = [Nest(b, (None,) * len(shape_of_buffer(b)), n) for b, n in numbers if n is not None]
    steps, between = steps_of([*constants, *nests], storages, writes)
    buffers = {b: lowering.new_buffer(s) for b, s in [*between.items(), *((b, storages[b]) for b in writes)]}
    for buffer, arg in zip(reads, args, strict=True):
        if any(buffer in step.reads for step in steps):
            buffers[buffer] = lowering.place(arg, storages[buffer])
    for step in steps:
        if (storages | between)[step.makes].numel:
            makes = var.name if step.makes in writes else f"{var.name}~{step.makes.name}"
            lowering.write(step.kernel, [buffers[b] for b in step.reads], buffers[step.makes], makes, name)
    _bind(lowering, var, [(buffers[b], storages[b]) for b in writes])


def _serially(
    lowering: CudaLowering, var: relax.Var, function: tirx.PrimFunc, args: list[relax.Expr], name: str
) -> None:
    reads, writes = list(function.params[: len(args)]), list(function.params[len(args) :])
    between = list(function.body.block.alloc_buffers)
    kernel = serial_kernel(function, reads, [*between, *writes])
    made = {b: plain(shape_of_buffer(b), str(b.ty.dtype)) for b in (*between, *writes)}
    buffers = {b: lowering.new_buffer(storage) for b, storage in made.items()}
    sources = [lowering.place(arg, plain(shape_of(arg), dtype_of(arg))) for arg in args]
    lowering.launch(kernel, sources, list(buffers.values()), var.name, name)
    _bind(lowering, var, [(buffers[b], made[b]) for b in writes])


def _bind(lowering: CudaLowering, var: relax.Var, results: list[tuple[Buffer, Storage]]) -> None:
    if isinstance(var.ty, TupleType):
        lowering.parts[var] = results
    else:
        lowering.alias(var, *results[0])


def _home(lowering: CudaLowering, arg: relax.Expr) -> Storage:
    return plain(shape_of(arg), dtype_of(arg)) if isinstance(arg, GenericConst) else lowering.home(arg)


def _number(arg: relax.Expr) -> Any:
    """A constant of one element as TIR has it: it stands in the kernel's text. None for anything else."""
    value = array(arg)
    if value is None or value.size != 1 or dtype_of(arg) not in ("float32", "int32", "int64", "bool"):
        return None
    return tirx.const(value.reshape(-1)[0].item(), dtype_of(arg))


def topk(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    kind, attrs = str(call.attrs.ret_type), call.attrs
    results = {"both": ("", str(attrs.dtype)), "values": ("",), "indices": (str(attrs.dtype),)}[kind]
    _sorted(lowering, var, call, bool(attrs.largest), results)


def sorted_values(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    _sorted(lowering, var, call, bool(call.attrs.descending), ("",))


def argsort(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    _sorted(lowering, var, call, bool(call.attrs.descending), (str(call.attrs.dtype),))


def _sorted(
    lowering: CudaLowering, var: relax.Var, call: relax.Call, descending: bool, results: tuple[str, ...]
) -> None:
    """results: for each the integer type of positions, "" for values."""
    x = plain(shape_of(call.args[0]), dtype_of(call.args[0]))
    types = var.ty.fields if isinstance(var.ty, TupleType) else [var.ty]
    source, axis, made = lowering.place(call.args[0], x), int(call.attrs.axis) % len(x.shape), []
    for positions, ty in zip(results, types, strict=True):
        out = plain([int(e) for e in ty.shape], positions or x.dtype)
        kernel = sort.sort(axis, descending, bool(positions), x, out)
        made.append((lowering.call(kernel, [source], out, var.name, op_name(call)), out))
    _bind(lowering, var, made)


def scan(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    """Along one axis; without an axis, over the flattened tensor."""
    axis, shape = call.attrs.axis, shape_of(var)
    x, out = plain(shape, dtype_of(call.args[0])), plain(shape, dtype_of(var))
    along = 0 if axis is None else int(axis) % len(shape)
    kernel = sort.scan(op_name(call) == "cumprod", along, bool(call.attrs.exclusive), x, out)
    lowering.emit(var, kernel, [lowering.place(call.args[0], x)], out, op_name(call))
