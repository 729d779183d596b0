"""Recurrent layers in float32: LSTM, GRU and plain RNN, one step after the other.

What the inputs contribute to all steps at once, ``x @ W``, is a matrix product of its own, in any format; here are
the products with the state, which each step waits for. A step multiplies one row, the state, with a matrix that stays
in cache: sums of 64 neighbouring columns are kept in registers, in vectors that LLVM cuts to the target's.

Sums run in one order on every target: the state's elements from first to last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf, prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.targets.kernels.builder import Buffer, Index, bind, load, loop, registers, splat, store, tiles
from qcompile.targets.kernels.float_functions import exp_scalar, sigmoid_scalar, tanh_scalar

ATTR_CELL = "qcompile.cell"  # of a kernel: its Cell in JSON
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}  # i o f c; z r h; h
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}  # activations of one direction: f g h; f g; f
_VECTOR = 16
_COLUMNS = 4 * _VECTOR  # sums in registers: 16 vectors of NEON, 8 of AVX2
_F32 = "float32"


@dataclass(frozen=True, slots=True)
class Activation:
    """A function by ONNX's name, and its parameters."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


def _f32(value: float) -> Expr:
    return tirx.const(value, _F32)


# From a number and (alpha, beta) to a number.
ACTIVATIONS: dict[str, Callable[[Expr, Expr, Expr], Expr]] = {
    "Sigmoid": lambda x, a, b: sigmoid_scalar(x),
    "Tanh": lambda x, a, b: tanh_scalar(x),
    "Relu": lambda x, a, b: tirx.Max(x, _f32(0)),
    "HardSigmoid": lambda x, a, b: tirx.Max(tirx.Min(x * a + b, _f32(1)), _f32(0)),
    "LeakyRelu": lambda x, a, b: tirx.Max(x, _f32(0)) + a * tirx.Min(x, _f32(0)),
    "Affine": lambda x, a, b: x * a + b,
    "ScaledTanh": lambda x, a, b: a * tanh_scalar(x * b),
    "Softsign": lambda x, a, b: x / (_f32(1) + tirx.Max(x, -x)),
    "Elu": lambda x, a, b: tirx.Max(x, _f32(0)) + a * (exp_scalar(tirx.Min(x, _f32(0))) - _f32(1)),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What a step computes, as ONNX defines it.

    kind: "LSTM", "GRU" or "RNN". size: elements of the state, H. reverse: for each direction, whether it starts with
    the last step. functions: the activations of each direction. clip: bound of what activations read. peepholes: the
    LSTM's gates see the cell, too. coupled: the LSTM's forget gate is 1 - i. reset_after: the GRU's reset gate
    multiplies the state's product, not the state.
    """

    kind: str
    size: int
    reverse: tuple[bool, ...]
    functions: tuple[tuple[Activation, ...], ...]
    clip: float = inf
    peepholes: bool = False
    coupled: bool = False
    reset_after: bool = False

    @property
    def columns(self) -> int:
        return GATES[self.kind] * self.size

    @property
    def scratch(self) -> int:
        """Elements of the last argument: products of a step, and the state that a reset gate has let through."""
        return self.columns + self.size

    def operands(self, lengths: bool) -> list[str]:
        """Arguments behind the inputs' products, in order."""
        some = [("c0", self.kind == "LSTM"), ("p", self.peepholes), ("rb", self.reset_after), ("lengths", lengths)]
        return ["r", "h0", *(name for name, there in some if there)]

    def results(self) -> list[str]:
        return ["y", "h", *(["c"] if self.kind == "LSTM" else []), "scratch"]


def recurrent(cell: Cell, steps: int, batch: int, lengths: bool = False) -> tirx.PrimFunc:
    """All steps of one layer in one or two directions, D.

    x (steps * batch, D * columns): products of the inputs, and all biases that are only added; r (D, H, columns);
    h0 and of an LSTM c0 (D, batch, H); p (D, 3 * H), for i, o, f; rb (D, H): the bias inside a GRU's reset; lengths
    (batch,) int32: steps of each sample, behind which y is 0. Then y (steps, D, batch, H), the last state h (D, batch,
    H), of an LSTM the last c, and scratch.
    """
    d, size, wide = len(cell.reverse), cell.size, cell.columns
    state = (d, batch, size)
    shapes: dict[str, tuple[int, ...]] = {
        "x": (steps * batch, d * wide),
        "r": (d, size, wide),
        "h0": state,
        "c0": state,
    }
    shapes |= {"p": (d, 3 * size), "rb": (d, size), "lengths": (batch,)}
    shapes |= {"y": (steps, d, batch, size), "h": state, "c": state, "scratch": (cell.scratch,)}
    dtypes = {"lengths": "int32"}
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(cell.kind.lower())
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8, ATTR_CELL: _to_json(cell)})
        args = {
            name: T.arg(name, T.buffer(shapes[name], dtypes.get(name, _F32)))
            for name in ["x", *cell.operands(lengths), *cell.results()]
        }
        flat = {
            name: T.decl_buffer((prod(shapes[name]),), dtypes.get(name, _F32), data=arg.data)
            for name, arg in args.items()
        }
        for direction in range(d):
            with loop(batch) as sample:
                _Sequence(cell, flat, direction, sample, steps, batch).emit()
    return builder.get().without_attr("global_symbol")


def cell_of(function: tirx.PrimFunc) -> Cell | None:
    """What a kernel of ``recurrent`` computes, for machines that have one of their own; None for other kernels."""
    if not function.attrs or ATTR_CELL not in function.attrs:
        return None
    fields = json.loads(str(function.attrs[ATTR_CELL]))
    fields["functions"] = tuple(tuple(Activation(**f) for f in functions) for functions in fields["functions"])
    return Cell(**{**fields, "reverse": tuple(fields["reverse"])})


def _to_json(cell: Cell) -> str:
    return json.dumps(asdict(cell))


@dataclass(frozen=True, slots=True)
class _Sequence:
    """All steps of one sample in one direction."""

    cell: Cell
    buffers: dict[str, Buffer]
    direction: int
    sample: Index
    steps: int
    batch: int

    def emit(self) -> None:
        cell, buffers = self.cell, self.buffers
        self._copy("h", self._state, "h0")
        if cell.kind == "LSTM":
            self._copy("c", self._state, "c0")
        lengths = buffers.get("lengths")
        count = self.steps if lengths is None else bind(tirx.Min(lengths[self.sample], self.steps))
        with T.serial(0, self.steps) as number:
            step = count - 1 - number if cell.reverse[self.direction] else number
            if lengths is None:
                self._step(step)
            else:
                with T.If(number < count):
                    with T.Then():
                        self._step(step)
                    with T.Else():
                        y = self._y(number)
                        _over(cell.size, lambda i: store(buffers["y"], y + i, _f32(0), 1))

    def _copy(self, to: str, start: Index, source: str) -> None:
        """The state, from or to where it is kept."""
        into, of, state = self.buffers[to], self.buffers[source], self._state
        _over(self.cell.size, lambda i: store(into, start + i, of[state + i], 1))

    @property
    def _state(self) -> Index:
        """Where this sequence's state starts in h0, c0, h and c."""
        return (self.direction * self.batch + self.sample) * self.cell.size

    def _y(self, step: Index) -> Index:
        return ((step * len(self.cell.reverse) + self.direction) * self.batch + self.sample) * self.cell.size

    def _step(self, step: Index) -> None:
        x = ((step * self.batch + self.sample) * len(self.cell.reverse) + self.direction) * self.cell.columns
        {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.cell.kind](x)
        self._copy("y", self._y(step), "h")

    def _rnn(self, x: Index) -> None:
        h, state = self.buffers["h"], self._state
        self._multiply(h, state, 0, self.cell.size)
        _over(self.cell.size, lambda i: store(h, state + i, self._activated(0, self._gate(x, 0, i)), 1))

    def _lstm(self, x: Index) -> None:
        h, c, state = self.buffers["h"], self.buffers["c"], self._state
        self._multiply(h, state, 0, self.cell.columns)

        def new_cell(i: Index) -> None:
            old, scratch = c[state + i], self.buffers["scratch"]
            store(scratch, i, self._activated(0, self._peeping(self._gate(x, 0, i), 0, old, i)), 1)
            kept = _f32(1) - scratch[i]
            if not self.cell.coupled:
                kept = self._activated(0, self._peeping(self._gate(x, 2, i), 2, old, i))
            store(c, state + i, kept * old + scratch[i] * self._activated(1, self._gate(x, 3, i)), 1)

        def output(i: Index) -> None:
            out = self._activated(0, self._peeping(self._gate(x, 1, i), 1, c[state + i], i))
            store(h, state + i, out * self._apply(2, c[state + i]), 1)

        _over(self.cell.size, new_cell)
        _over(self.cell.size, output)

    def _gru(self, x: Index) -> None:
        size, h, scratch, state = self.cell.size, self.buffers["h"], self.buffers["scratch"], self._state
        after = self.cell.reset_after
        self._multiply(h, state, 0, (3 if after else 2) * size)

        def reset(i: Index) -> Expr:
            return self._activated(0, self._gate(x, 1, i))

        if not after:  # what the reset gate lets through of the state goes into a product of its own
            passed = self.cell.columns
            _over(size, lambda i: store(scratch, passed + i, reset(i) * h[state + i], 1))
            self._multiply(scratch, passed, 2 * size, size)

        def output(i: Index) -> None:
            store(scratch, i, self._activated(0, self._gate(x, 0, i)), 1)
            update, new = scratch[i], self._gate(x, 2, i)
            if after:
                product = scratch[2 * size + i] + self.buffers["rb"][self.direction * size + i]
                new = self.buffers["x"][x + 2 * size + i] + reset(i) * product
            store(h, state + i, (_f32(1) - update) * self._activated(1, new) + update * h[state + i], 1)

        _over(size, output)

    def _gate(self, x: Index, number: int, i: Index) -> Expr:
        """What both products and the biases give for element ``i`` of a gate."""
        at = number * self.cell.size + i
        return self.buffers["x"][x + at] + self.buffers["scratch"][at]

    def _peeping(self, value: Expr, number: int, cell: Expr, i: Index) -> Expr:
        if not self.cell.peepholes:
            return value
        return value + self.buffers["p"][(self.direction * 3 + number) * self.cell.size + i] * cell

    def _activated(self, which: int, value: Expr) -> Expr:
        bound = self.cell.clip
        return self._apply(which, value if bound == inf else tirx.Max(tirx.Min(value, _f32(bound)), _f32(-bound)))

    def _apply(self, which: int, value: Expr) -> Expr:
        function = self.cell.functions[self.direction][which]
        return ACTIVATIONS[function.name](value, _f32(function.alpha), _f32(function.beta))

    def _multiply(self, vector: Buffer, start: Index, first: int, count: int) -> None:
        """``scratch[first : +count] = vector[start : +H] @ r[:, first : +count]``."""
        size, wide, r, scratch = self.cell.size, self.cell.columns, self.buffers["r"], self.buffers["scratch"]
        for begin, width, panels in tiles(count, _COLUMNS):
            parts = [(at, min(_VECTOR, width - at)) for at in range(0, width, _VECTOR)]
            with loop(panels) as panel:
                column = first + begin + panel * width
                sums = [registers(lanes, _F32) for _, lanes in parts]
                for total, (_, lanes) in zip(sums, parts, strict=True):
                    store(total, 0, splat(0, _F32, lanes), lanes)
                with T.serial(0, size) as k:
                    row = (self.direction * size + k) * wide + column
                    for total, (at, lanes) in zip(sums, parts, strict=True):
                        factor = tirx.Broadcast(vector[start + k], lanes) if lanes > 1 else vector[start + k]
                        store(total, 0, load(total, 0, lanes) + factor * load(r, row + at, lanes), lanes)
                for total, (at, lanes) in zip(sums, parts, strict=True):
                    store(scratch, column + at, load(total, 0, lanes), lanes)


def _over(count: int, body: Callable[[Index], None]) -> None:
    """``body`` for each of ``count`` neighbouring elements, in vectors."""
    for start, width, blocks in tiles(count, _VECTOR):
        with loop(blocks) as block:
            if width == 1:
                body(start + block)
            else:
                with T.vectorized(0, width) as lane:
                    body(start + block * width + lane)
