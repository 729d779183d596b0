"""Turns a lowered ``main`` into one TIR function that calls its kernels directly: no virtual machine, no allocation.

::

    a = call_tir(k0, (x, w0))                 def main(x, y, weights, workspace):
    b = call_tir(k1, (a, w1))           ->        k0(x, &weights[0], &workspace[0])
    y = reshape(b, ...)                           k1(&workspace[0], &weights[4096], y)
    return (y,)

Every buffer's place is fixed here: constants in one array that is mapped from a file, intermediates in one workspace,
the last kernel writes straight into the caller's output. A call of the library is one FFI call, that of a kernel one
machine call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
from tvm import relax, tirx
from tvm.ir import GenericConst, GlobalVar, IRModule, TupleType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.passes.base import dtype_of, op_name, shape_of
from qcompile.passes.kernel_calls import address, call_kernel, private
from qcompile.passes.plan_memory import ALIGNMENT, Lifetime, plan_memory
from qcompile.targets.storage import SLACK

PROFILE = "profile"

# Constants read in inner loops start at a cache line; the many short ones (biases) would waste more than they gain.
_LARGE, _SMALL_ALIGNMENT = 512, 16


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call of the entry function: its variable, kernel, and the bytes of each argument's place."""

    output: str
    kernel: str


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The finished module, and what must stand beside it.

    module: PrimFunc ``main(inputs..., outputs..., weights, workspace)``, its twin ``profile`` with one more argument
    (int64 stamps of the cycle counter, one before the first kernel and one after each), and private kernels.
    weights: uint8, flat. workspace: bytes. steps: the kernel calls in order.
    """

    module: IRModule
    weights: np.ndarray
    workspace: int
    steps: tuple[Step, ...]


@dataclass(slots=True)
class _Root:
    """A piece of memory: a parameter, a result, the weights, or a buffer of the workspace."""

    kind: str  # "input", "output", "weights", "workspace"
    index: int = 0  # which input or output
    size: int = 0
    first: int = 0
    last: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    root: _Root
    offset: int


def emit_entry(module: IRModule) -> Entry:
    """A module whose ``main`` holds call_tir, reshape, memory.view, tuples and constants only."""
    return _Emitter(module).run()


@dataclass(slots=True)
class _Emitter:
    module: IRModule
    places: dict[relax.Expr, list[_Place]] = field(default_factory=dict)  # variable -> place of each of its tensors
    calls: list[tuple[str, GlobalVar, list[_Place]]] = field(default_factory=list)
    buffers: list[_Root] = field(default_factory=list)
    blob: bytearray = field(default_factory=bytearray)
    known: dict[bytes, int] = field(default_factory=dict)

    def run(self) -> Entry:
        main = graph.read(self.module)
        for i, param in enumerate(main.params):
            self.places[param] = [_Place(_Root("input", i), 0)]
        for var, value in main.bindings:
            self.places[var] = self._bind(var, value)
        self._results(main)
        intermediate = [b for b in self.buffers if b.kind == "workspace"]
        offsets, total = plan_memory([Lifetime(b.size, b.first, b.last) for b in intermediate])
        for root, offset in zip(intermediate, offsets, strict=True):
            root.offset = offset
        self.blob.extend(bytes(SLACK))
        weights = np.frombuffer(bytes(self.blob), np.uint8)
        workspace = total + SLACK
        functions = {gvar: private(f) for gvar, f in self.module.functions_items() if isinstance(f, tirx.PrimFunc)}
        entries = {
            GlobalVar(name): self._function(main, name, weights.size, workspace) for name in (graph.MAIN, PROFILE)
        }
        steps = tuple(Step(name, gvar.name_hint) for name, gvar, _ in self.calls)
        return Entry(IRModule({**entries, **functions}), weights, workspace, steps)

    def _bind(self, var: relax.Var, value: relax.Expr) -> list[_Place]:
        if isinstance(value, relax.Var):
            return self.places[value]
        if isinstance(value, GenericConst):
            return [self._constant(value)]
        if isinstance(value, relax.Tuple):
            return [self._place(f) for f in value.fields]
        if isinstance(value, relax.TupleGetItem):
            return [self._all(value.tuple_value)[value.index]]
        name = op_name(value)
        if name == "reshape":
            return [self._place(value.args[0])]
        if name == "memory.view":
            place = self._place(value.args[0])
            start = int(value.args[3].value) if len(value.args) > 3 and hasattr(value.args[3], "value") else 0
            return [_Place(place.root, place.offset + start)]
        if name == "call_tir":
            return self._kernel(var, value)
        raise QCompileError(
            f"operator {name or value} has no static kernel", node=var.name, remedy="please report the model"
        )

    def _kernel(self, var: relax.Var, call: relax.Call) -> list[_Place]:
        args = [self._place(f) for f in call.args[1].fields]
        types = list(var.ty.fields) if isinstance(var.ty, TupleType) else [var.ty]
        results = []
        for ty in types:
            size = prod(int(e) for e in ty.shape) * np.dtype(str(ty.dtype)).itemsize
            root = _Root("workspace", 0, size, len(self.calls))
            self.buffers.append(root)
            results.append(_Place(root, 0))
        self._call(var.name, call.args[0], [*args, *results])
        return results

    def _call(self, name: str, gvar: GlobalVar, places: list[_Place]) -> None:
        for place in places:
            place.root.last = max(place.root.last, len(self.calls))
        self.calls.append((name, gvar, places))

    def _all(self, expr: relax.Expr) -> list[_Place]:
        return [self._place(f) for f in expr.fields] if isinstance(expr, relax.Tuple) else self.places[expr]

    def _place(self, expr: relax.Expr) -> _Place:
        if isinstance(expr, GenericConst):
            return self._constant(expr)
        if isinstance(expr, relax.TupleGetItem):
            return self._all(expr.tuple_value)[expr.index]
        return self.places[expr][0]

    def _constant(self, constant: GenericConst) -> _Place:
        """Equal constants are stored once."""
        data = np.ascontiguousarray(constant.value.numpy()).tobytes()
        if data not in self.known:
            alignment = ALIGNMENT if len(data) >= _LARGE else _SMALL_ALIGNMENT
            self.blob.extend(bytes(-len(self.blob) % alignment))
            self.known[data] = len(self.blob)
            self.blob.extend(data)
        return _Place(_Root("weights"), self.known[data])

    def _results(self, main: graph.Graph) -> None:
        """A kernel that makes a result writes into the caller's array; results that are no kernel's own are copied."""
        for i, output in enumerate(main.outputs):
            place = self._place(output)
            if place.root.kind == "workspace" and place.offset == 0 and self._is_whole(place.root, output):
                place.root.kind, place.root.index = "output", i
                continue
            name = output.name if isinstance(output, relax.Var) else f"output{i}"
            size = prod(shape_of(output)) * np.dtype(dtype_of(output)).itemsize
            self._call(f"{name}~copy", self._copy(size), [place, _Place(_Root("output", i), 0)])

    def _is_whole(self, root: _Root, output: relax.Expr) -> bool:
        return root.size == prod(shape_of(output)) * np.dtype(dtype_of(output)).itemsize

    def _copy(self, size: int) -> GlobalVar:
        name = f"copy_{size}"
        gvar = next((g for g in self.module.get_global_vars() if g.name_hint == name), None)
        if gvar is None:
            from qcompile.targets.kernels.builder import kernel, loop

            def body(x, y) -> None:
                with loop(size) as i:
                    T.buffer_store(y, x[i], [i])

            gvar = GlobalVar(name)
            self.module = IRModule(
                {
                    **dict(self.module.functions_items()),
                    gvar: kernel(name, [("x", "uint8", size), ("y", "uint8", size)], body),
                }
            )
        return gvar

    def _function(self, main: graph.Graph, name: str, weights: int, workspace: int) -> tirx.PrimFunc:
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(name)
            inputs = [T.arg(f"input{i}", T.buffer(shape_of(p), dtype_of(p))) for i, p in enumerate(main.params)]
            outputs = [T.arg(f"output{i}", T.buffer(shape_of(o), dtype_of(o))) for i, o in enumerate(main.outputs)]
            arrays = {
                "weights": [T.arg("weights", T.buffer((weights,), "uint8"))],
                "workspace": [T.arg("workspace", T.buffer((workspace,), "uint8"))],
                "input": inputs,
                "output": outputs,
            }
            stamps = T.arg("stamps", T.buffer((len(self.calls) + 1,), "int64")) if name == PROFILE else None
            for i, (_, gvar, places) in enumerate(self.calls):
                _stamp(stamps, i)
                args = [address(arrays[p.root.kind][p.root.index], p.root.offset + p.offset) for p in places]
                call_kernel(gvar, self.module[gvar], args)
            _stamp(stamps, len(self.calls))
        return builder.get()


def _stamp(stamps: tirx.Buffer | None, i: int) -> None:
    if stamps is not None:
        T.buffer_store(stamps, tirx.call_llvm_intrin("int64", "llvm.readcyclecounter"), [i])
