"""Kernels as text: one thread for a few neighbouring elements of a result, and how it reads its operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.ops import Affine, Epilogue
from qcompile.reference.arithmetic import code_bounds, out_scale, ratio
from qcompile.targets.cuda.storage import Storage

NAME = "@name@"  # stands for a kernel's name, so that equal kernels have equal texts
THREADS, WORD = 256, 16  # of a block; bytes that a thread moves at once


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and how it is launched.

    text: its source, ``NAME`` for its name; all its parameters are pointers, the last one's is the result.
    grid, block: blocks, and threads of each. shared: bytes of shared memory a block. note: of its shape, for reports.
    cycles: that what it computes takes, predicted, on the architecture that it was made for; 0 if next to nothing.
    """

    text: str
    grid: int
    block: int = THREADS
    shared: int = 0
    note: str = ""
    cycles: float = 0


@dataclass(frozen=True, slots=True)
class Operand:
    """A parameter of a kernel."""

    name: str
    storage: Storage

    @property
    def parameter(self) -> str:
        return f"const {self.storage.type}* {self.name}"

    def packs(self, out: Storage, lanes: int) -> bool:
        """Whether the elements beside ``lanes`` of the result's lie side by side, too."""
        s = self.storage
        whole = s.pitch % lanes == 0 and s.pitch >= out.pitch and lanes * s.item_bytes <= WORD
        return s.axis == out.axis and s.channels == out.channels and whole

    def read(self, out: Storage, lanes: int, index: Sequence[str] | None = None) -> tuple[str, str]:
        """(statements before the loop over lanes j, element j). index: of the first lane; that of the result if None.

        Axes of extent 1 are broadcast.
        """
        s, names = self.storage, list(index or axes(out))
        names = ["0" if extent == 1 else name for extent, name in zip(s.shape, names, strict=True)]
        if names[out.axis] == f"i{out.axis}" and self.packs(out, lanes) and lanes > 1:
            pack = f"Pack<{s.type}, {lanes}>"
            head = f"const {pack} {self.name}s = *reinterpret_cast<const {pack}*>({self.name} + {s.at(names)});"
            return head, f"{self.name}s.v[j]"
        if s.shape[out.axis] == 1:
            return "", f"{self.name}[{s.at(names)}]"
        names[out.axis] = f"{names[out.axis]} + j"
        element = f"{self.name}[{s.at(names)}]"
        padded = out.pitch > out.channels
        return "", f"(i{out.axis} + j < {out.channels} ? {element} : {s.type}(0))" if padded else element


def axes(out: Storage) -> list[str]:
    """Names of the logical indices of a thread's first element."""
    return [f"i{a}" for a in range(len(out.shape))]


def lanes_of(out: Storage, x: Storage | None = None) -> int:
    """Elements of the result that a thread makes.

    x: what is read at other pixels of the same channels; then one, unless neighbours are channels in both.
    """
    if x is not None and (x.axis, out.axis) != (1, 1):
        return 1
    return next(n for n in (4, 2, 1) if out.pitch % n == 0 and n * out.item_bytes <= WORD)


def each_element(parameters: Sequence[str], out: Storage, lanes: int, head: str, value: str) -> Kernel:
    """``y[i0][i1]... = value`` of every element; ``value`` may use i0, i1, ..., of the first lane, and j, the lane.

    head: statements before. parameters: declarations of what is read.
    """
    groups = out.pitch // lanes
    pack = f"Pack<{out.type}, {lanes}>"
    store = (
        f"{pack} result;\n  QC_UNROLL\n  for (int j = 0; j < {lanes}; ++j) result.v[j] = {value};\n"
        f"  *reinterpret_cast<{pack}*>(y + {out.at(axes(out))}) = result;"
    )
    body = f"{indices(out, lanes)}\n  {head}\n  {store}"
    return each_thread([*parameters, f"{out.type}* y"], out.rows * groups, body)


def signature(parameters: Sequence[str]) -> str:
    """Declarations of pointers; no two of a kernel's lead to the same memory."""
    return ", ".join(parameter.replace("* ", "* __restrict__ ") for parameter in parameters)


def each_thread(parameters: Sequence[str], count: int, body: str) -> Kernel:
    """``count`` threads, each with its number ``i``."""
    text = f"""QC_KERNEL({THREADS}) {NAME}({signature(parameters)}) {{
  const int i = blockIdx.x * {THREADS} + threadIdx.x;
  if (i >= {count}) return;
  {body}
}}
"""
    return Kernel(text, -(-count // THREADS))


def indices(storage: Storage, lanes: int) -> str:
    """Declares i0, i1, ... of the ``lanes`` elements that are number i."""
    groups = storage.pitch // lanes
    scaled = f" * {lanes}" if lanes > 1 else ""
    lines = [f"const int i{storage.axis} = i % {groups}{scaled};"]
    inner = groups
    for a in reversed(storage.others):
        lines.append(f"const int i{a} = i / {inner} % {storage.shape[a]};")
        inner *= storage.shape[a]
    return "\n  ".join(lines)


def literal(value: float | np.floating) -> str:
    """A float32 in C++, to the bit."""
    number = np.float32(value)
    if np.isinf(number):
        return "QC_INFINITY" if number > 0 else "-QC_INFINITY"
    return f"{float(number).hex()}f"


def steps(code: str, q: Affine) -> str:
    """``f32(code - zero_point)``."""
    return f"real({code} - {q.zero_point})" if q.zero_point else f"real({code})"


def to_code(value: str, out: Affine, bounds: tuple[int, int] | None = None) -> str:
    low, high = bounds or (out.qmin, out.qmax)
    z = out.zero_point
    return f"to_code({value}, {literal(low - z)}, {literal(high - z)}, {z})"


def finish(value: str, epilogue: Epilogue, residual: str = "") -> str:
    """``ops.Epilogue`` of the expression ``value``; residual: the other tensor's element."""
    if epilogue.residual is not None:
        factor = literal(ratio(epilogue.residual.scale, out_scale(epilogue)))
        value = f"sum({value}, product({steps(residual, epilogue.residual)}, {factor}))"
    elif epilogue.residual_is_float:
        value = f"sum({value}, {residual})"
    if epilogue.out is not None:
        return to_code(value, epilogue.out, code_bounds(epilogue.out, epilogue.clip))
    return clipped(value, epilogue.clip)


def clipped(value: str, clip: tuple[float, float] | None) -> str:
    """``clip(v, *clip)`` of a float; an infinite bound costs nothing."""
    low, high = clip or (float("-inf"), float("inf"))
    value = value if low == float("-inf") else f"fmaxf({value}, {literal(low)})"
    return value if high == float("inf") else f"fminf({value}, {literal(high)})"
