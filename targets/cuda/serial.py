"""Functions that are not loop nests of one store each (scatters, reductions of pairs): one block runs them as written.

Loops that TVM marks as parallel, and nests without a reduction, are shared out among the block's threads, the rest is
done by one of them. It is slow, and right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from tvm import tirx
from tvm.s_tir import SBlock, SBlockRealize
from tvm.tirx import IterVar, PrimFunc

from qcompile.errors import QCompileError
from qcompile.targets.cuda.expressions import Scope, Writer, loaded, stored, value_type
from qcompile.targets.cuda.nests import Buffer, shape_of_buffer
from qcompile.targets.cuda.storage import TYPES, Storage, plain
from qcompile.targets.cuda.text import NAME, THREADS, Kernel

_PARTS = ("body", "block", "then_case", "else_case")


def serial_kernel(function: PrimFunc, reads: list[Buffer], writes: list[Buffer]) -> Kernel:
    """Buffers: ``reads``, then ``writes``, temporaries among them, as ONNX has them all."""
    text = _Text({b: f"x{i}" for i, b in enumerate(reads)} | {b: f"y{i}" for i, b in enumerate(writes)})
    body = text.together(function.body, {})
    parameters = [f"const {TYPES[str(b.ty.dtype)]}* x{i}" for i, b in enumerate(reads)]
    parameters += [f"{TYPES[str(b.ty.dtype)]}* y{i}" for i, b in enumerate(writes)]
    kernel = f"QC_KERNEL({THREADS}) {NAME}({', '.join(parameters)}) {{\n{body}}}\n"
    return Kernel(kernel, 1, THREADS, 0, "one block")


def temporaries(function: PrimFunc) -> list[Buffer]:
    return list(function.body.block.alloc_buffers) if isinstance(function.body, SBlockRealize) else []


class _Text:
    def __init__(self, buffers: dict[Buffer, str]):
        self._buffers, self._numbers = buffers, count()
        self._writer = Writer(self._load)

    def together(self, statement: Any, names: Mapping[Any, str]) -> str:
        """A statement that all threads of the block come to."""
        if isinstance(statement, tirx.SeqStmt):
            return self._sequence(statement, names, self.together)
        if isinstance(statement, SBlock):
            return self.together(statement.body, names)
        if isinstance(statement, SBlockRealize) and not statement.block.iter_vars:
            return self.together(statement.block, names)
        if isinstance(statement, tirx.AttrStmt):
            return self.together(statement.body, names)
        if isinstance(statement, tirx.For):
            if statement.kind == tirx.ForKind.PARALLEL or _is_parallel(statement):
                return self._loop(statement, names, "threadIdx.x", f" += {THREADS}") + "barrier();\n"
            if _has_parallel(statement.body):
                return self._loop(statement, names, "0", " += 1", together=True)
        return f"if (threadIdx.x == 0) {{\n{self.alone(statement, names)}}}\nbarrier();\n"

    def alone(self, statement: Any, names: Mapping[Any, str]) -> str:
        """A statement of one thread."""
        if isinstance(statement, tirx.SeqStmt):
            return self._sequence(statement, names, self.alone)
        if isinstance(statement, (SBlockRealize, SBlock)):
            return self._block(statement, names)
        if isinstance(statement, tirx.For):
            return self._loop(statement, names, "0", " += 1")
        if isinstance(statement, tirx.BufferStore):
            return self._store(statement, names)
        if isinstance(statement, tirx.IfThenElse):
            scope = Scope(self._numbers)
            condition = self._writer.write(statement.condition, names, scope)
            text = f"{scope.block()}\nif ({condition}) {{\n{self.alone(statement.then_case, names)}}}\n"
            if statement.else_case is not None:
                text += f"else {{\n{self.alone(statement.else_case, names)}}}\n"
            return f"{{{text}}}\n"
        if isinstance(statement, tirx.AttrStmt):
            return self.alone(statement.body, names)
        kind = type(statement).__name__
        raise QCompileError(f"no CUDA text for a statement of kind {kind}", remedy="build the model for a CPU target")

    def _sequence(
        self, statements: tirx.SeqStmt, names: Mapping[Any, str], write: Callable[[Any, Mapping[Any, str]], str]
    ) -> str:
        text, names = "", dict(names)
        for each in statements.seq:
            text += self._bind(each, names) or write(each, names)
        return text

    def _bind(self, statement: Any, names: dict[Any, str]) -> str:
        """Of a name for a value, which holds for the statements that follow."""
        if not isinstance(statement, tirx.Bind):
            return ""
        scope = Scope(self._numbers)
        value, name = self._writer.write(statement.value, names, scope), f"v{next(self._numbers)}"
        names[statement.var] = name
        return f"{scope.block()}\nconst {value_type(str(statement.value.ty.dtype))} {name} = {value};\n"

    def _loop(self, loop: tirx.For, names: Mapping[Any, str], start: str, step: str, together: bool = False) -> str:
        name, scope = f"i{next(self._numbers)}", Scope(self._numbers)
        least, extent = (self._writer.write(e, names, scope) for e in (loop.min, loop.extent))
        body = (self.together if together else self.alone)(loop.body, {**names, loop.loop_var: name})
        head = f"for (int {name} = {least} + {start}; {name} < {least} + {extent}; {name}{step})"
        return f"{{{scope.block()}\n{head} {{\n{body}}}\n}}\n"

    def _block(self, statement: SBlockRealize | SBlock, names: Mapping[Any, str]) -> str:
        if isinstance(statement, SBlock):
            return self.alone(statement.body, names)
        block, scope, names, begins = statement.block, Scope(self._numbers), dict(names), []
        for axis, value in zip(block.iter_vars, statement.iter_values, strict=True):
            names[axis.var] = scope.name("int", self._writer.write(value, names, scope))
            if axis.iter_type == IterVar.CommReduce:
                begins.append(f"{names[axis.var]} == 0")
        text = scope.block() + "\n"
        if block.init is not None:
            text += f"if ({' && '.join(begins) or 'true'}) {{\n{self.alone(block.init, names)}}}\n"
        return f"{{{text}{self.alone(block.body, names)}}}\n"

    def _store(self, store: tirx.BufferStore, names: Mapping[Any, str]) -> str:
        scope = Scope(self._numbers)
        at = self._place(store.buffer, [self._writer.write(i, names, scope) for i in store.indices])
        value = stored(self._writer.write(store.value, names, scope), _storage(store.buffer))
        return f"{{{scope.block()}\n{at} = {value};\n}}\n"

    def _load(self, buffer: Buffer, indices: list[str], _: Scope) -> str:
        return loaded(self._place(buffer, indices), _storage(buffer))

    def _place(self, buffer: Buffer, indices: list[str]) -> str:
        return f"{self._buffers[buffer]}[{_storage(buffer).at(indices or ['0'])}]"


def _storage(buffer: Buffer) -> Storage:
    return plain(shape_of_buffer(buffer), str(buffer.ty.dtype))


def _is_parallel(loop: tirx.For) -> bool:
    """Whether the outermost loop of a nest runs over results, one of each in each turn."""
    statement: Any = loop
    while isinstance(statement, tirx.For):
        statement = statement.body
    if not isinstance(statement, SBlockRealize):
        return False
    axes = zip(statement.block.iter_vars, statement.iter_values, strict=True)
    return any(isinstance(v, tirx.Var) and v.same_as(loop.loop_var) and a.iter_type == IterVar.DataPar for a, v in axes)


def _has_parallel(statement: Any) -> bool:
    if isinstance(statement, tirx.SeqStmt):
        return any(map(_has_parallel, statement.seq))
    if isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL:
        return True
    return any(_has_parallel(getattr(statement, part)) for part in _PARTS if getattr(statement, part, None) is not None)
