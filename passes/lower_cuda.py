"""Lowers the integer form to CUDA kernels and their launches: what ``LowerLayers`` and ``emit_entry`` are for CPUs.

::

    y = conv2d_0(x, weight, bias, m)             conv2d_0<<<grid, 128, shared>>>(x, packed, bias, m, workspace + 4096)
    z = reshape(y, ...)                   ->     (the same memory, or a kernel that moves it)

Each tensor lies channels last (``targets.cuda.storage``), model inputs and outputs as ONNX has them. A row of
``lower_cuda_layers`` makes the kernel of a composite by its specification, or of a plain operator by its name; all
other operators are loop nests by then (``legalize_cuda``), and ``lower_cuda_functions`` makes kernels of those. Equal
kernels are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from tvm import relax
from tvm.ir import GenericConst, IRModule

from qcompile import graph, ops
from qcompile.errors import QCompileError
from qcompile.manifest import Launch, ScheduleInfo
from qcompile.passes.assign_storage import MAXIMUM, called_spec, narrow_tensors
from qcompile.passes.base import array, dtype_of, op_name, shape_of
from qcompile.passes.cuda_memory import SLACK, Buffer, Call, Constants, Kernels, plan_workspace
from qcompile.passes.cuda_storage import images
from qcompile.passes.cuda_waiting import NESTS, Waiting
from qcompile.passes.layer_names import layer_name
from qcompile.passes.legalize_cuda import legalize_cuda
from qcompile.passes.lower_cuda_functions import compute
from qcompile.passes.lower_cuda_layers import COMPOSITES, OPERATORS, has_row
from qcompile.passes.lower_cuda_movement import Part
from qcompile.passes.lower_layers import KernelNote, is_tensor
from qcompile.targets.cuda import launch_time, movement
from qcompile.targets.cuda.architectures import architecture
from qcompile.targets.cuda.program import Program
from qcompile.targets.cuda.rows import ROWS, CudaTarget
from qcompile.targets.cuda.storage import NARROW, Storage, channels_last, plain, rows_last
from qcompile.targets.cuda.text import Kernel
from qcompile.targets.kernels.template import Schedules, default_schedules

_SM_80 = ROWS[0].narrowed("sm_80")  # what is emulated, too


def lower_cuda(
    module: IRModule,
    kernels: Kernels | None = None,
    target: CudaTarget = _SM_80,
    schedules: Schedules = default_schedules,
) -> tuple[Program, list[KernelNote]]:
    """The program of a module in integer form, and a note for each launch. kernels: which are there already.

    target: of one architecture. schedules: what is known of good knobs for a workload.
    Raises ``QCompileError`` that names the first layer for which there is no kernel.
    """
    constants, module = Constants(), legalized(module)
    lowering = CudaLowering(module, target, kernels or Kernels(), constants, schedules)
    return replace(lowering.run(), weights=constants.weights), lowering.notes


def lower_cuda_each(
    module: IRModule, target: CudaTarget, schedules: Callable[[CudaTarget], Schedules] = lambda _: default_schedules
) -> tuple[dict[str, Program], dict[str, list[KernelNote]]]:
    """The program of each of the target's architectures, and its notes, by name; all have the same weights.

    schedules: what is known of good knobs on an architecture.
    """
    constants, module = Constants(), legalized(module)
    lowerings = {
        row.architecture: CudaLowering(module, row, Kernels(), constants, schedules(row)) for row in target.each()
    }
    programs = {arch: lowering.run() for arch, lowering in lowerings.items()}
    weights = constants.weights
    notes = {arch: lowering.notes for arch, lowering in lowerings.items()}
    return {arch: replace(program, weights=weights) for arch, program in programs.items()}, notes


def legalized(module: IRModule) -> IRModule:
    """``module`` with loop nests for all that no row of ``lower_cuda_layers`` takes."""
    return legalize_cuda(module, OPERATORS, has_row)


def predict_launches(
    module: IRModule, target: CudaTarget, schedules: Schedules = default_schedules
) -> list[tuple[KernelNote, float]]:
    """The launches of a module in integer form, and the seconds that each is predicted to take.

    target, schedules: as for ``lower_cuda``.
    """
    lowering = CudaLowering(legalized(module), target, Kernels(), Constants(), schedules)
    lowering.run()
    return list(zip(lowering.notes, lowering.seconds(), strict=True))


class CudaLowering:
    """One run, for one architecture: where each tensor of ``main`` lies."""

    def __init__(
        self, module: IRModule, target: CudaTarget, kernels: Kernels, constants: Constants, schedules: Schedules
    ):
        self.module, self.target, self.schedules = module, target, schedules
        self.notes: list[KernelNote] = []
        self.main = graph.read(module)
        self.definitions, self.users = self.main.definitions(), self.main.users()
        self.outputs = {o for o in self.main.outputs if isinstance(o, relax.Var)}
        self._images = images(module) - self._matrices()
        self.waiting: dict[relax.Expr, Waiting] = {}  # what is not stored yet, and may never be
        self.concats: dict[tuple[int, tuple[Part, ...]], relax.Var] = {}  # by axis and parts
        self.parts: dict[relax.Expr, list[tuple[Buffer, Storage]]] = {}  # of tuples
        specs = {var: called_spec(module, value) for var, value in self.main.bindings}
        self.narrow = narrow_tensors(self.main, specs, NARROW, (*NESTS, *MAXIMUM))  # what each such tensor lies in
        self._places: dict[relax.Expr, dict[Storage, Buffer]] = {}
        self._calls: list[Call] = []
        self._kernels, self._constants = kernels, constants
        self.layer = ""

    def run(self) -> Program:
        """Without weights, which are those of ``constants`` once every run has added its own."""
        for i, param in enumerate(self.main.params):
            storage = plain(shape_of(param), dtype_of(param))
            self._places[param] = {storage: Buffer(f"input{i}", storage.nbytes)}
        for var, value in self.main.bindings:
            self._lower(var, value)
        for i, output in enumerate(self.main.outputs):
            self._result(i, output)
        total = plan_workspace(self._calls)
        launches = tuple(
            Launch(
                call.kernel,
                call.launch.grid,
                call.launch.block,
                call.launch.shared,
                tuple((b.memory, b.offset) for b in call.buffers),
                note.layer,
            )
            for call, note in zip(self._calls, self.notes, strict=True)
        )
        return Program(self._kernels.text, launches, np.zeros(0, np.uint8), total + SLACK)

    def seconds(self) -> list[float]:
        """Of each launch, predicted, in the order of ``notes``."""
        gpu = architecture(self.target.architecture)
        return [launch_time.seconds(c.launch, sum(b.size for b in c.buffers), gpu) for c in self._calls]

    def _lower(self, var: relax.Var, value: relax.Expr) -> None:
        spec = called_spec(self.module, value)
        if spec is not None:
            self.layer = ops.layer_of(self.module[value.op])
            COMPOSITES[type(spec)](self, var, value, spec)
            return
        self.layer = layer_name(var.name, {})
        if isinstance(value, relax.Var):
            self._places[var] = self._places[value]
            return
        if op_name(value) == "split" and is_tensor(value.args[0]):
            return  # its parts are slices
        name = "split" if isinstance(value, relax.TupleGetItem) else op_name(value)
        if name not in OPERATORS:
            raise QCompileError(
                f"there is no CUDA kernel of {name or type(value).__name__} yet",
                node=self.layer,
                remedy="build the model for a CPU target, or leave the operator to the program around the model",
            )
        OPERATORS[name](self, var, value)

    def refuse(self, what: str) -> QCompileError:
        """The error to raise for the layer at hand."""
        return QCompileError(
            f"there is no CUDA kernel of {what} yet", node=self.layer, remedy="build the model for a CPU target"
        )

    def check(self, format: str) -> None:
        """Raises the error for the layer at hand if the target has no kernels of its format."""
        self.target.check(format, self.layer)

    def home(self, tensor: relax.Expr) -> Storage:
        """The storage of a tensor: the first that it got, else what it is to get."""
        places = self._places.get(tensor)
        if places:
            return next(iter(places))
        shape, dtype = shape_of(tensor), dtype_of(tensor)
        if tensor in self.outputs and dtype not in ("uint8", "int8"):
            return plain(shape, dtype)
        lies = channels_last if tensor in self._images else rows_last
        narrow = lies(shape, self.narrow.get(tensor, dtype))
        return narrow if narrow.pitch == narrow.channels else lies(shape, dtype)  # what pads floats must not be NaN

    def _matrices(self) -> set[relax.Expr]:
        """Tensors whose last axis is what matrix products sum over or make."""
        found: set[relax.Expr] = set()
        for var, value in self.main.bindings:
            if isinstance(called_spec(self.module, value), ops.Dense):
                found |= {var, value.args[0]}
        return found

    def place(self, tensor: relax.Expr, storage: Storage) -> Buffer:
        """The buffer of a tensor or constant in ``storage``; moved there if it is not yet."""
        if isinstance(tensor, GenericConst):
            return self.constant(storage.store(array(tensor).reshape(storage.shape)))
        if tensor in self.waiting:
            compute(self, tensor, self.waiting.pop(tensor), storage)
        places = self._places[tensor]
        for known, buffer in places.items():
            if known.same_memory(storage):
                return buffer
        source, buffer = next(iter(places.items()))
        places[storage] = self.call(
            movement.relayout(source, storage), [buffer], storage, f"{tensor.name}~moved", "relayout"
        )
        return places[storage]

    def constant(self, value: np.ndarray) -> Buffer:
        return self._constants.add(value)

    def emit(
        self,
        var: relax.Var,
        kernel: Kernel,
        arguments: Sequence[Buffer | np.ndarray],
        storage: Storage,
        op: str,
        schedule: ScheduleInfo | None = None,
    ) -> None:
        """Binds ``var`` to what a kernel of these arguments leaves in ``storage``. schedule: its knobs, if it has."""
        self._places.setdefault(var, {})[storage] = self.call(kernel, arguments, storage, var.name, op)
        self.notes[-1] = replace(self.notes[-1], schedule=schedule)

    def call(
        self, kernel: Kernel, arguments: Sequence[Buffer | np.ndarray], storage: Storage, name: str, op: str
    ) -> Buffer:
        """A launch whose result is a new buffer. Arrays among the arguments become constants."""
        result = self.new_buffer(storage)
        self.write(kernel, arguments, result, name, op)
        return result

    def buffer(self, var: relax.Var, storage: Storage) -> Buffer:
        """The buffer of ``var``, for calls that write it part by part."""
        result = self.new_buffer(storage)
        self._places.setdefault(var, {})[storage] = result
        return result

    def new_buffer(self, storage: Storage) -> Buffer:
        return Buffer("workspace", storage.nbytes)

    def write(
        self, kernel: Kernel, arguments: Sequence[Buffer | np.ndarray], result: Buffer, name: str, op: str
    ) -> None:
        """A launch that writes (a part of) a buffer."""
        self.launch(kernel, arguments, [result], name, op)

    def launch(
        self,
        kernel: Kernel,
        arguments: Sequence[Buffer | np.ndarray],
        results: Sequence[Buffer],
        name: str,
        op: str,
    ) -> None:
        """A launch that writes several buffers, its last parameters."""
        buffers = [*(a if isinstance(a, Buffer) else self.constant(a) for a in arguments), *results]
        for buffer in buffers:
            buffer.first = len(self._calls) if buffer.first < 0 else buffer.first
            buffer.last = len(self._calls)
        kernel_name = self._kernels.add(op, kernel.text)
        self._calls.append(Call(name, kernel_name, kernel, buffers, len(results)))
        self.notes.append(KernelNote(name, self.layer, op, kernel_name, kernel.note))

    def alias(self, var: relax.Var, buffer: Buffer, storage: Storage) -> None:
        """``var`` is a buffer that is there already."""
        self._places.setdefault(var, {})[storage] = buffer

    def _result(self, i: int, output: relax.Expr) -> None:
        """A buffer that a kernel makes for one result alone becomes the caller's; others are copied."""
        wanted = plain(shape_of(output), dtype_of(output))
        buffer = self.place(output, wanted)
        if buffer.memory == "workspace" and buffer.size == wanted.nbytes:
            buffer.memory = f"output{i}"
            return
        name = output.name if isinstance(output, relax.Var) else f"output{i}"
        copy = movement.relayout(wanted, wanted)
        self.write(copy, [buffer], Buffer(f"output{i}", wanted.nbytes), f"{name}~copy", "copy")
