"""Lowers the PrimFuncs of ``legalize_cuda``, and the operators that no loop nest is good for: sorts and scans."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax, tirx
from tvm.ir import GenericConst, TupleType

from qcompile.errors import QCompileError
from qcompile.passes.base import array, dtype_of, op_name, shape_of
from qcompile.passes.cuda_waiting import Waiting, waits
from qcompile.passes.layer_names import layer_name
from qcompile.targets.cuda import sort
from qcompile.targets.cuda.nest_kernels import steps_of
from qcompile.targets.cuda.nests import Nest, read_nests, shape_of_buffer
from qcompile.targets.cuda.recurrent import recurrent
from qcompile.targets.cuda.serial import serial_kernel, temporaries
from qcompile.targets.cuda.storage import Storage, plain
from qcompile.targets.cuda.text import Kernel
from qcompile.targets.kernels.recurrent import cell_of

if TYPE_CHECKING:
    from qcompile.passes.cuda_memory import Buffer
    from qcompile.passes.lower_cuda import CudaLowering


def call_tir(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    name = re.sub(r"(?<=[a-z])_?\d+(?=_|$)", "", re.sub(r"\W", "_", call.args[0].name_hint))  # TVM numbers them
    made = Waiting(lowering.module[call.args[0]], tuple(call.args[1].fields), name)
    if not waits(lowering, var, made):
        compute(lowering, var, made)


def compute(lowering: CudaLowering, var: relax.Var, made: Waiting, wanted: Storage | None = None) -> None:
    """Loop nests lie as their neighbours do; what is anything else is computed by one block, on plain tensors.

    wanted: the storage that a reader wants.
    """
    layer, lowering.layer = lowering.layer, layer_name(var.name, {})
    try:
        _compute(lowering, var, made, wanted)
    except QCompileError as error:
        raise error if error.node else QCompileError(error.reason, node=lowering.layer, remedy=error.remedy) from None
    lowering.layer = layer


def _compute(lowering: CudaLowering, var: relax.Var, made: Waiting, wanted: Storage | None) -> None:
    cell = cell_of(made.function)
    read = _expanded(lowering, made, {made.function})
    if cell is not None:
        shapes = {b.name: shape_of_buffer(b) for b in made.function.params}
        _whole(lowering, var, made, recurrent(cell, shapes), [])
    elif read is None:
        params, between = list(made.function.params), temporaries(made.function)
        kernel = serial_kernel(made.function, params[: len(made.args)], [*between, *params[len(made.args) :]])
        _whole(lowering, var, made, kernel, between)
    else:
        _in_steps(lowering, var, made, *read, wanted)


def _in_steps(
    lowering: CudaLowering,
    var: relax.Var,
    made: Waiting,
    nests: list[Nest],
    args: dict[Any, relax.Expr],
    wanted: Storage | None,
) -> None:
    """args: of buffers, what they are."""
    writes = list(made.function.params[len(made.args) :])
    storages = {b: _home(lowering, arg) for b, arg in args.items()}
    storages |= {b: plain(shape_of_buffer(b), str(b.ty.dtype)) for b in writes}
    if len(writes) == 1:
        home = lowering.home(var)
        fits = wanted is not None and (wanted.shape, wanted.dtype) == (home.shape, home.dtype)
        storages[writes[0]] = wanted if fits else home
    steps, between = steps_of(nests, storages, writes)
    read = {b for step in steps for b in step.reads if b in args}
    buffers = {b: lowering.place(args[b], storages[b]) for b in read}
    buffers |= {b: lowering.new_buffer(s) for b, s in [*between.items(), *((b, storages[b]) for b in writes)]}
    for step in steps:
        if (storages | between)[step.makes].numel:
            makes = var.name if step.makes in writes else f"{var.name}~{step.makes.name}"
            lowering.write(step.kernel, [buffers[b] for b in step.reads], buffers[step.makes], makes, made.name)
    _bind(lowering, var, [(buffers[b], storages[b]) for b in writes])


def _expanded(
    lowering: CudaLowering, made: Waiting, taken: set[tirx.PrimFunc]
) -> tuple[list[Nest], dict[Any, relax.Expr]] | None:
    """The nests of a function, after those of what waits for it, and the tensors that they read by their buffers.

    taken: the functions whose variables are in use.
    """
    own = read_nests(made.function)
    if own is None:
        return None
    nests: list[Nest] = []
    args: dict[Any, relax.Expr] = {}
    for buffer, arg in zip(made.function.params, made.args, strict=False):
        number, source = _number(arg), lowering.waiting.get(arg)
        if number is not None:
            nests.append(Nest(buffer, (None,) * len(shape_of_buffer(buffer)), number))
            continue
        if source is None:
            args[buffer] = arg
            continue
        if source.function in taken:  # each with its own variables
            source = replace(source, function=tvm.ir.load_json(tvm.ir.save_json(source.function)))
        taken.add(source.function)
        inner = _expanded(lowering, source, taken)
        assert inner is not None, "only loop nests wait"
        *before, last = inner[0]
        nests += [*before, replace(last, buffer=buffer)]
        args |= inner[1]
    return [*nests, *own], args


def _whole(lowering: CudaLowering, var: relax.Var, made: Waiting, kernel: Kernel, between: list[Any]) -> None:
    """One launch for a whole function: tensors lie as ONNX has them. between: temporaries that it writes, too."""
    writes = [*between, *made.function.params[len(made.args) :]]
    kept = {b: plain(shape_of_buffer(b), str(b.ty.dtype)) for b in writes}
    buffers = {b: lowering.new_buffer(storage) for b, storage in kept.items()}
    sources = [lowering.place(arg, plain(shape_of(arg), dtype_of(arg))) for arg in made.args]
    lowering.launch(kernel, sources, list(buffers.values()), var.name, made.name)
    _bind(lowering, var, [(buffers[b], kept[b]) for b in writes[len(between) :]])


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
