"""The kernels of a lowered simulation form as a list, and one function that runs any rows of it.

::

    def main(memory, program):              program[i] = (kernel, byte offset of each argument in memory, ...)
        for row in program:
            if row[0] == 0: conv2d_0(&memory[row[1]], &memory[row[2]], ...)
            if row[0] == 1: ...

So what is computed, from which buffers and into which, is data at run time; and a forward pass is one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from tvm import relax, tirx
from tvm.ir import GenericConst, GlobalVar, IRModule, TupleType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.passes.base import dtype_of, op_name
from qcompile.passes.kernel_calls import address, call_kernel, private
from qcompile.passes.lower_layers import kernel_notes
from qcompile.simulate.calls import ALIGNMENT, Call, Kernels, Place
from qcompile.simulate.lowering import CHOOSE
from qcompile.targets.storage import SLACK


def nbytes(ty: relax.TensorType) -> int:
    return prod(int(e) for e in ty.shape) * np.dtype(str(ty.dtype)).itemsize


_TWIN = "twin"  # of ``main``; nothing calls it


@dataclass(slots=True)
class _Reader:
    module: IRModule
    ops: dict[str, str]  # by name of a kernel call's result
    places: dict[relax.Var, list[Place]] = field(default_factory=dict)  # of each of a variable's tensors
    calls: list[Call] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    choices: dict[str, int] = field(default_factory=dict)
    options: list[tuple[Place, ...]] = field(default_factory=list)
    numbers: dict[GlobalVar, int] = field(default_factory=dict)
    blob: bytearray = field(default_factory=bytearray)
    known: dict[bytes, int] = field(default_factory=dict)

    def run(self) -> Kernels:
        main = graph.read(self.module)
        for i, param in enumerate(main.params):
            self.places[param] = [Place("input", i)]
        for var, value in main.bindings:
            self.places[var] = self._bind(var, value)
        self.blob.extend(bytes(SLACK))
        return Kernels(
            tuple(self.calls),
            tuple(self.sizes),
            self.choices,
            tuple(self.options),
            tuple(nbytes(param.ty) for param in main.params),
            tuple(self._place(out) for out in main.outputs),
            1 + max((len(c.args) + len(c.results) for c in self.calls), default=0),
        )

    def _bind(self, var: relax.Var, value: relax.Expr) -> list[Place]:
        name = op_name(value)
        if isinstance(value, (relax.Var, GenericConst, relax.Tuple, relax.TupleGetItem)):
            return self._all(value)
        if name == "reshape":
            return [self._place(value.args[0])]
        if name == "memory.view":
            place = self._place(value.args[0])
            start = int(value.args[3].value) if len(value.args) > 3 and hasattr(value.args[3], "value") else 0
            return [Place(place.kind, place.index, place.offset + start)]
        if name == "call_tir" and value.args[0].name_hint.startswith(f"{CHOOSE}_"):
            self.choices[var.name] = len(self.options)
            self.options.append(tuple(self._place(option) for option in value.args[1].fields))
            return [Place("choice", self.choices[var.name])]
        if name == "call_tir":
            return self._call(var, value)
        raise QCompileError(
            f"operator {name or value} has no static kernel", node=var.name, remedy="please report the model"
        )

    def _call(self, var: relax.Var, call: relax.Call) -> list[Place]:
        args = tuple(self._place(arg) for arg in call.args[1].fields)
        constants = [(arg, place) for arg, place in zip(call.args[1].fields, args, strict=True) if _is_constant(arg)]
        weights = tuple((place.offset, nbytes(arg.ty), dtype_of(arg)) for arg, place in constants)
        types = list(var.ty.fields) if isinstance(var.ty, TupleType) else [var.ty]
        results = tuple(range(len(self.sizes), len(self.sizes) + len(types)))
        self.sizes.extend(nbytes(ty) for ty in types)
        kernel = self.numbers.setdefault(call.args[0], len(self.numbers))
        self.calls.append(Call(var.name, self.ops.get(var.name, ""), kernel, args, results, weights))
        return [Place("buffer", result) for result in results]

    def _all(self, expr: relax.Expr) -> list[Place]:
        if isinstance(expr, relax.Tuple):
            return [self._place(each) for each in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return [self._all(expr.tuple_value)[expr.index]]
        return [self._constant(expr)] if isinstance(expr, GenericConst) else self.places[expr]

    def _place(self, expr: relax.Expr) -> Place:
        return self._all(expr)[0]

    def _constant(self, constant: GenericConst) -> Place:
        data = np.ascontiguousarray(constant.value.numpy()).tobytes()
        if data not in self.known:
            self.blob.extend(bytes(-len(self.blob) % ALIGNMENT))
            self.known[data] = len(self.blob)
            self.blob.extend(data)
        return Place("weights", 0, self.known[data])


def _is_constant(expr: relax.Expr) -> bool:
    return isinstance(expr, GenericConst)


def read_kernels(module: IRModule) -> tuple[Kernels, np.ndarray, IRModule]:
    """Of a lowered simulation form: its kernels, their constants (uint8, flat), and the module to compile."""
    reader = _Reader(module, {note.output: note.op for note in kernel_notes(module)})
    kernels = reader.run()
    functions = {gvar: private(module[gvar]) for gvar in reader.numbers}
    # A kernel that one function calls once would be inlined there, and LLVM's time grows faster than a function's size.
    names = (graph.MAIN, _TWIN)
    mains = {GlobalVar(name): _dispatch(name, list(reader.numbers), functions, kernels) for name in names}
    return kernels, np.frombuffer(bytes(reader.blob), np.uint8), IRModule({**mains, **functions})


def _dispatch(
    name: str, gvars: Sequence[GlobalVar], functions: Mapping[GlobalVar, tirx.PrimFunc], kernels: Kernels
) -> tirx.PrimFunc:
    def call(number: int, row: tirx.Var, memory: tirx.Buffer, program: tirx.Buffer) -> None:
        function = functions[gvars[number]]
        count = len(function.params)
        call_kernel(gvars[number], function, [address(memory, program[row, 1 + i]) for i in range(count)])

    def branch(first: int, end: int, row: tirx.Var, memory: tirx.Buffer, program: tirx.Buffer) -> None:
        if end - first == 1:
            call(first, row, memory, program)
            return
        middle = (first + end) // 2
        with T.If(program[row, 0] < middle):
            with T.Then():
                branch(first, middle, row, memory, program)
            with T.Else():
                branch(middle, end, row, memory, program)

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        size, rows = tirx.Var("size", "int64"), tirx.Var("rows", "int64")
        memory = T.arg("memory", T.buffer((size,), "uint8"))
        program = T.arg("program", T.buffer((rows, kernels.width), "int64"))
        with T.serial(0, rows) as row:
            if gvars:
                branch(0, len(gvars), row, memory, program)
            else:
                T.evaluate(0)
    return builder.get()
