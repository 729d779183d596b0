"""Recurrent layers: a block for each sample and direction goes through the steps, its state in shared memory.

What waits for the state, ``h @ r``, is a product with a thread for each column; r is read from the cache at each step.
Sums run over the state's elements from first to last, as they do on CPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import tirx

from qcompile.errors import QCompileError
from qcompile.targets.cuda.expressions import Scope, Writer
from qcompile.targets.cuda.text import NAME, Kernel
from qcompile.targets.kernels.recurrent import ACTIVATIONS, Cell

_MOST_SHARED = 64 << 10  # bytes of a block on every architecture


def recurrent(cell: Cell, shapes: Mapping[str, Sequence[int]]) -> Kernel:
    """The kernel of ``targets.kernels.recurrent``: the same buffers, ``shapes`` are theirs by name, in order."""
    steps, directions, batch, size = shapes["y"]
    columns, shared = cell.columns, 4 * (3 * size + cell.columns)
    if shared > _MOST_SHARED:
        raise QCompileError(f"a state of {size} elements has no CUDA kernel", remedy="build the model for a CPU target")
    threads = min(max(32, 1 << (columns - 1).bit_length()), 512)
    each = f"for (int i = threadIdx.x; i < {size}; i += {threads})"
    lstm = cell.kind == "LSTM"
    parameters = [f"{'int' if name == 'lengths' else 'float'}* {name}" for name in shapes]
    made = cell.results()
    parameters = [p if name in made else f"const {p}" for p, name in zip(parameters, shapes, strict=True)]
    bodies = [_step(cell, d, threads, each) for d in range(directions)]
    body = bodies[0] if bodies[0] == bodies[-1] else f"if (direction == 0) {{\n{bodies[0]}}} else {{\n{bodies[1]}}}\n"
    count = f"lengths[sample] < {steps} ? lengths[sample] : {steps}" if "lengths" in shapes else f"{steps}"
    back = " || ".join(f"direction == {d}" for d, turned in enumerate(cell.reverse) if turned) or "false"
    text = f"""QC_KERNEL({threads}) {NAME}({", ".join(parameters)}) {{
  QC_SHARED(memory);
  float* const state = reinterpret_cast<float*>(memory);
  float* const inside = state + {size};
  float* const passed = inside + {size};
  float* const product_of = passed + {size};
  const int direction = blockIdx.x / {batch}, sample = blockIdx.x % {batch}, first = blockIdx.x * {size};
  const float* const weights = r + direction * {size * columns};
  const int count = {count};
  {each} {{
    state[i] = h0[first + i];
    {"inside[i] = c0[first + i];" if lstm else ""}
  }}
  barrier();
  for (int turn = 0; turn < {steps}; ++turn) {{
    const int step = turn < count && ({back}) ? count - 1 - turn : turn;
    float* const result = y + ((step * {directions} + direction) * {batch} + sample) * {size};
    if (turn >= count) {{
      {each} result[i] = 0.0f;
      continue;
    }}
    const float* const row = x + ((step * {batch} + sample) * {directions} + direction) * {columns};
{body}    {each} result[i] = state[i];
    barrier();
  }}
  {each} {{
    h[first + i] = state[i];
    {"c[first + i] = inside[i];" if lstm else ""}
  }}
}}
"""
    return Kernel(text, directions * batch, threads, shared, f"{threads} columns at a time")


def _step(cell: Cell, direction: int, threads: int, each: str) -> str:
    """Statements that leave the next state; every thread has come to the end of them before one goes on."""
    scope = Scope()
    gates = _Gates(cell, direction, scope)
    size = cell.size
    if cell.kind == "RNN":
        return _product("state", 0, size, cell, threads) + _elements(
            each, scope, [f"state[i] = {gates.active(0, gates.sum(0))};"]
        )
    if cell.kind == "LSTM":
        scope.lines.append("const float old = inside[i];")
        begun = scope.name("float", gates.active(0, gates.peeping(0, "old")))
        kept = f"sum(1.0f, -{begun})" if cell.coupled else gates.active(0, gates.peeping(2, "old"))
        new = scope.name("float", f"sum(product({kept}, old), product({begun}, {gates.active(1, gates.sum(3))}))")
        out = gates.active(0, gates.peeping(1, new))
        lines = [f"inside[i] = {new};", f"state[i] = product({out}, {gates.applied(2, new)});"]
        return _product("state", 0, cell.columns, cell, threads) + _elements(each, scope, lines)
    text = _product("state", 0, (3 if cell.reset_after else 2) * size, cell, threads)
    reset = gates.active(0, gates.sum(1))
    if cell.reset_after:
        inner = f"sum(product_of[{2 * size} + i], rb[{direction * size} + i])"
        new = f"sum(row[{2 * size} + i], product({reset}, {inner}))"
    else:
        before = Scope()
        passed = _Gates(cell, direction, before).active(0, gates.sum(1))
        text += _elements(each, before, [f"passed[i] = product({passed}, state[i]);"])
        text += _product("passed", 2 * size, size, cell, threads)
        new = gates.sum(2)
    update = scope.name("float", gates.active(0, gates.sum(0)))
    made = f"product(sum(1.0f, -{update}), {gates.active(1, new)})"
    return text + _elements(each, scope, [f"state[i] = sum({made}, product({update}, state[i]));"])


def _product(vector: str, first: int, count: int, cell: Cell, threads: int) -> str:
    """``product_of[first : +count] = vector @ weights[:, first : +count]``."""
    return f"""    for (int column = {first} + threadIdx.x; column < {first + count}; column += {threads}) {{
      float total = 0.0f;
      for (int k = 0; k < {cell.size}; ++k) total = fmaf({vector}[k], weights[k * {cell.columns} + column], total);
      product_of[column] = total;
    }}
    barrier();
"""


def _elements(each: str, scope: Scope, lines: Sequence[str]) -> str:
    return f"    {each} {{{scope.block('      ')}\n      {' '.join(lines)}\n    }}\n    barrier();\n"


class _Gates:
    """What the gates of element i are made of, as text."""

    def __init__(self, cell: Cell, direction: int, scope: Scope):
        self._cell, self._direction, self._scope = cell, direction, scope

    def sum(self, number: int) -> str:
        """What both products and the biases give."""
        at = f"{number * self._cell.size} + i"
        return f"sum(row[{at}], product_of[{at}])"

    def peeping(self, number: int, cell: str) -> str:
        value = self.sum(number)
        if not self._cell.peepholes:
            return value
        weight = f"p[{(self._direction * 3 + number) * self._cell.size} + i]"
        return f"sum({value}, product({weight}, {cell}))"

    def active(self, which: int, value: str) -> str:
        bound = self._cell.clip
        if bound == float("inf"):
            return self.applied(which, value)
        return self.applied(which, f"larger<float>(smaller<float>({value}, {bound!r}f), -{bound!r}f)")

    def applied(self, which: int, value: str) -> str:
        function, v = self._cell.functions[self._direction][which], tirx.Var("v", "float32")
        alpha, beta = (tirx.const(n, "float32") for n in (function.alpha, function.beta))
        made = ACTIVATIONS[function.name](v, alpha, beta)
        return Writer(_no_buffer).write(made, {v: self._scope.name("float", value)}, self._scope)


def _no_buffer(buffer: Any, *_: Any) -> str:
    raise ValueError(f"an activation reads {buffer}")
