"""Lowers the integer (and fused float) form to kernels on flat buffers.

::

    y = conv2d_0(x, weight, bias, m)             x1 = call_tir(relayout, (x,))             where storages differ
                                         ->      y  = call_tir(conv2d, (x1, packed, bias, m), out_ty=Tensor((n,)))
    z = softmax(y)                               y1 = reshape(call_tir(relayout, (y,)), (1, 10))
                                                 z  = softmax(y1)             an island: left to LegalizeIslands

A composite function, a quantize or dequantize, and the plain operators that ``layer_kernels`` knows become calls of
generated kernels; anything else stays a Relax operator on plain tensors. Kernels that come out equal are shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import GenericConst, GlobalVar, IRModule, TupleType

from qcompile import graph
from qcompile.manifest import ScheduleInfo
from qcompile.ops import layer_of
from qcompile.passes.assign_storage import assign_storage, called_spec
from qcompile.passes.base import array, dtype_of, module_pass, op_name, shape_of
from qcompile.passes.layer_names import layer_name
from qcompile.passes.lower_movement import MOVEMENT, lower_split_part
from qcompile.passes.lower_unweighted import OPERATORS, UNWEIGHTED
from qcompile.passes.lower_weighted import WEIGHTED
from qcompile.targets.kernels.quantize import relayout
from qcompile.targets.kernels.template import Schedules, default_schedules
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target

# A row lowers a composite function by its spec, or a plain operator by its name; that may decline, and leave an island.
_COMPOSITES: dict[type, Callable[..., None]] = {**WEIGHTED, **UNWEIGHTED}
_OPERATORS = {**OPERATORS, **MOVEMENT}

ATTR_KERNELS = "qcompile.kernels"  # JSON list of KernelNote, on ``main``


@dataclass(frozen=True, slots=True)
class KernelNote:
    """One kernel call, for reports: the variable it makes, its layer, its kernel, and the knobs if that has some."""

    output: str
    layer: str
    op: str
    kernel: str
    note: str
    schedule: ScheduleInfo | None = None


def kernel_notes(lowered: IRModule) -> list[KernelNote]:
    """The notes that ``LowerLayers`` left on ``main``."""
    attrs = lowered[graph.MAIN].attrs
    rows = json.loads(str(attrs[ATTR_KERNELS])) if attrs and ATTR_KERNELS in attrs else []
    return [KernelNote(**{**row, "schedule": row["schedule"] and ScheduleInfo(**row["schedule"])}) for row in rows]


def LowerLayers(  # noqa: N802 (named like TVM's own passes)
    target: Target, schedules: Schedules = default_schedules
) -> tvm.ir.transform.Pass:
    """See the module's docstring. schedules: what is known of good knobs for a workload."""
    return module_pass("LowerLayers", lambda module: Lowering(module, target, schedules).run(), __doc__)


class Lowering:
    """One run of the pass: where each tensor of the old ``main`` lies in the new one."""

    def __init__(self, module: IRModule, target: Target, schedules: Schedules = default_schedules):
        self.module, self.target, self.schedules = module, target, schedules
        self.main = graph.read(module)
        self.builder = graph.MainBuilder(self.main.params, module)
        self._definitions, self._users = self.main.definitions(), self.main.users()
        self.home = assign_storage(module)
        self.notes: list[KernelNote] = []
        self._places: dict[relax.Var, dict[Storage, relax.Expr]] = {}  # old tensor -> storage -> flat buffer
        self._logical: dict[relax.Var, relax.Expr] = {}  # old variable -> the same as a Relax tensor or tuple
        self._kernels: dict[int, list[tuple[tirx.PrimFunc, GlobalVar]]] = {}
        self.layer = ""  # ONNX node that is being lowered

    def run(self) -> IRModule:
        for param in self.main.params:
            self._logical[param] = param
        for var, value in self.main.bindings:
            self._lower(var, value)
        module = self.builder.module([self.logical(output) for output in self.main.outputs])
        main = module[graph.MAIN].with_attr(ATTR_KERNELS, json.dumps([asdict(note) for note in self.notes]))
        module.update_func(module.get_global_var(graph.MAIN), main)
        return module

    def _lower(self, var: relax.Var, value: relax.Expr) -> None:
        spec = called_spec(self.module, value)
        if spec is not None:
            self.layer = layer_of(self.module[value.op])
            _COMPOSITES[type(spec)](self, var, value, spec)
            return
        self.layer = layer_name(var.name, {})
        if not self._lower_operator(var, value):
            reads = {read: self.logical(read) for read in dict.fromkeys(graph.reads(value))}
            self._logical[var] = self.builder.emit(graph.substitute(value, reads), var.name)

    def _lower_operator(self, var: relax.Var, value: relax.Expr) -> bool:
        if op_name(value) == "split" and is_tensor(value.args[0]):
            return all(isinstance(self._definitions[user], relax.TupleGetItem) for user in self._users[var])
        if isinstance(value, relax.TupleGetItem):
            split = self._definitions.get(value.tuple_value)
            return op_name(split) == "split" and lower_split_part(self, var, split, value.index)
        lower = _OPERATORS.get(op_name(value))
        return lower is not None and lower(self, var, value)

    def place(self, tensor: relax.Expr, storage: Storage) -> relax.Expr:
        """The flat buffer of an old tensor or constant in ``storage``; moved there if it is not yet."""
        if isinstance(tensor, GenericConst):
            flat = storage.store(array(tensor))
            return relax.const(flat, str(flat.dtype))
        places = self._places.setdefault(tensor, {})
        if storage not in places:
            source, flat = self._source(tensor, storage)
            if same_memory(source, storage):
                places[storage] = self.view(flat, storage, tensor.name)
            else:
                kernel, op = (
                    relayout(source, storage, self.target),
                    "relayout" if source.dtype == storage.dtype else "cast",
                )
                places[storage] = self._call(kernel, [flat], storage, f"{tensor.name}~{_describe(storage)}", op, "")
        return places[storage]

    def _source(self, tensor: relax.Var, wanted: Storage) -> tuple[Storage, relax.Expr]:
        """A storage that the tensor has: one of the same memory if there is one, else the first it got."""
        places = self._places.setdefault(tensor, {})
        if not places:
            plain = Storage(shape_of(tensor), dtype_of(tensor))
            logical = self._logical[tensor]
            places[plain] = self.builder.emit(relax.op.reshape(logical, (plain.numel,)), f"{tensor.name}~flat")
        return next(((s, flat) for s, flat in places.items() if same_memory(s, wanted)), next(iter(places.items())))

    def view(self, flat: relax.Expr, storage: Storage, name: str) -> relax.Expr:
        """A buffer (or the beginning of it) as that of another storage."""
        elements = int(flat.ty.shape[0])
        if elements == storage.numel:
            return flat
        return self.builder.emit(relax.op.memory.view(flat, (storage.numel,), storage.bits, 0), f"{name}~view")

    def logical(self, expr: relax.Expr) -> relax.Expr:
        """An old variable as an ordinary Relax tensor (or tuple), for islands and results."""
        if not isinstance(expr, relax.Var):
            return expr
        if expr not in self._logical:
            plain = Storage(shape_of(expr), dtype_of(expr))
            flat = self.place(expr, plain)
            self._logical[expr] = self.builder.emit(relax.op.reshape(flat, plain.shape), expr.name)
        return self._logical[expr]

    def emit(
        self,
        var: relax.Var,
        kernel: tirx.PrimFunc,
        args: list[relax.Expr],
        storage: Storage,
        op: str,
        note: str = "",
        constants: tuple[np.ndarray, ...] = (),
        schedule: ScheduleInfo | None = None,
    ) -> None:
        """Binds ``var`` to a kernel call that leaves it in ``storage``. ``constants`` follow the first argument."""
        packed = [relax.const(c, str(c.dtype)) for c in constants]
        flat = self._call(kernel, [args[0], *packed, *args[1:]], storage, var.name, op, note, schedule)
        self._places.setdefault(var, {})[storage] = flat

    def step(
        self, kernel: tirx.PrimFunc, args: list[relax.Expr], storage: Storage, var: relax.Var, op: str
    ) -> relax.Var:
        """A kernel call on the way to ``var``: the buffer that it leaves."""
        return self._call(kernel, args, storage, f"{var.name}~{op}", op, "")

    def alias(self, var: relax.Var, flat: relax.Expr, storage: Storage) -> None:
        """``var`` is a buffer that is there already."""
        self._places.setdefault(var, {})[storage] = flat

    def _call(
        self,
        kernel: tirx.PrimFunc,
        args: list[relax.Expr],
        storage: Storage,
        name: str,
        op: str,
        note: str,
        schedule: ScheduleInfo | None = None,
    ) -> relax.Var:
        gvar = self._shared(kernel, op)
        self.notes.append(KernelNote(name, self.layer, op, gvar.name_hint, note, schedule))
        out = relax.TensorType((storage.numel,), storage.bits)
        return self.builder.emit(relax.call_tir(gvar, args, out), name)

    def _shared(self, kernel: tirx.PrimFunc, op: str) -> GlobalVar:
        alike = self._kernels.setdefault(tvm_ffi.structural_hash(kernel), [])
        for other, gvar in alike:
            if tvm_ffi.structural_equal(kernel, other):
                return gvar
        gvar = self.builder.add_function(kernel, op)
        alike.append((kernel, gvar))
        return gvar


def is_tensor(var: relax.Expr) -> bool:
    return not isinstance(var.ty, TupleType)


def same_memory(a: Storage, b: Storage) -> bool:
    """Whether the buffer of ``a``, or its beginning, serves as that of ``b``: the same elements, in row-major order."""
    if a == b:
        return True
    if a.dtype != b.dtype or a.numel < b.numel:
        return False
    return _in_order(a) and _in_order(b)


def _in_order(s: Storage) -> bool:
    """Whether elements lie in row-major order, with nothing between them."""
    if not s.blocked:
        return True
    n, c, h, w = s.image
    one_pixel = h == w == 1 and (n == 1 or c % s.block == 0)
    return not any(s.border) and (one_pixel or s.block == 1)


def _describe(storage: Storage) -> str:
    return ("blocked" if storage.blocked else "plain") + (f" {storage.dtype}" if storage.bits != storage.dtype else "")
