"""Images of one column become images of one row, along which kernels run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.ir import GenericConst, IRModule

from qcompile import graph
from qcompile.graph import MainBuilder
from qcompile.passes.base import array, constant, dtype_of, module_pass, op_name, shape_of
from qcompile.passes.sink_transposes import BINARY, UNARY

POOLS = {"nn.max_pool2d": relax.op.nn.max_pool2d, "nn.avg_pool2d": relax.op.nn.avg_pool2d}


def _run(module: IRModule) -> IRModule:
    """Convolutions of columns, and what lies between them, on rows::

        c = conv2d(x, w)      (N, C, H, 1), (O, C, K, 1)         x.r = reshape(x)      (N, C, 1, H)
        d = add(c, b)                                     ->     c = conv2d(x.r, w.r)  (O, C, 1, K)
        y = relu(d)                                              d = add(c, b)
                                                                 y = relu(d)           (N, O, 1, H)

    A permute_dims that makes a column for a convolution makes a row. Where anything else reads a row, and at
    outputs, it is reshaped, which moves nothing.
    """
    return _Turner(module).run()


turn_columns: tvm.ir.transform.ModulePass = module_pass("TurnColumns", _run, _run.__doc__)


class _Turner:
    def __init__(self, module: IRModule):
        self.module, self.main = module, graph.read(module)
        self.users, self.definitions = self.main.users(), self.main.definitions()
        self.outputs = set(self.main.outputs)
        self.builder = MainBuilder(self.main.params, module)
        # An old variable in the new graph: as it was, turned, or both.
        self.straight: dict[relax.Var, relax.Expr] = {p: p for p in self.main.params}
        self.turned: dict[relax.Var, relax.Expr] = {}

    def run(self) -> IRModule:
        for var, value in self.main.bindings:
            row = self._row(var, value) if is_column(var) or self._reads_row(value) else None
            if row is None:
                value = graph.substitute(value, {read: self._column_of(read) for read in graph.reads(value)})
                self.straight[var] = self.builder.emit(value, var.name)
            elif is_column(var):
                self.turned[var] = self.builder.emit(row, f"{var.name}~row" if var in self.outputs else var.name)
            else:  # one pixel, the same either way
                self.straight[var] = self.builder.emit(row, var.name)
        outputs = [self._column_of(o) if isinstance(o, relax.Var) else o for o in self.main.outputs]
        return self.builder.module(outputs) if self.turned else self.module

    def _reads_row(self, value: relax.Expr) -> bool:
        return any(read in self.turned or is_column(read) for read in graph.reads(value))

    def _row_of(self, var: relax.Var) -> relax.Expr:
        if var not in self.turned:
            self.turned[var] = self.builder.emit(
                relax.op.reshape(self.straight[var], _swapped(shape_of(var))), f"{var.name}~row"
            )
        return self.turned[var]

    def _column_of(self, var: relax.Var) -> relax.Expr:
        if var not in self.straight:
            name = var.name if var in self.outputs else f"{var.name}~column"
            self.straight[var] = self.builder.emit(relax.op.reshape(self.turned[var], shape_of(var)), name)
        return self.straight[var]

    def _row(self, var: relax.Var, value: relax.Expr) -> relax.Call | None:
        """What makes the row in place of the column ``var``; None if it is to stay."""
        kind = op_name(value)
        if kind == "nn.conv2d":
            return self._conv(value) if turns(var, value) else None
        if kind == "permute_dims":
            return self._permute(var, value)
        if not isinstance(value, relax.Call) or not any(arg in self.turned for arg in value.args):
            return None
        if kind in POOLS and int(value.attrs.pool_size[1]) == 1 and _is_plain(value) and is_image_column(var):
            return self._pool(kind, value)
        if kind in UNARY and is_column(var):  # an astype has another type
            return relax.Call(value.op, [self._row_of(value.args[0]), *value.args[1:]], value.attrs, value.ty_args)
        if kind in BINARY:
            operands = [self._operand(arg) for arg in value.args]
            return None if None in operands else relax.Call(value.op, operands, value.attrs)
        if kind == "mean" and sorted(int(a) % 4 for a in value.attrs.axis or ()) == [2, 3]:
            return relax.Call(value.op, [self._row_of(value.args[0])], value.attrs)
        return None

    def _operand(self, expr: relax.Expr) -> relax.Expr | None:
        """An operand of an operator with broadcasting, turned."""
        if isinstance(expr, relax.Var):
            if is_column(expr):
                return self._row_of(expr)
            one_pixel = len(shape_of(expr)) == 4 and shape_of(expr)[2:] == (1, 1)
            return self._column_of(expr) if one_pixel else None
        shape = (1,) * (4 - len(shape_of(expr))) + shape_of(expr)
        if len(shape) != 4 or shape[3] != 1:
            return None
        return expr if shape[2] == 1 else constant(array(expr).reshape(_swapped(shape)))

    def _conv(self, call: relax.Call) -> relax.Call:
        weight, a = call.args[1], call.attrs
        return relax.op.nn.conv2d(
            self._row_of(call.args[0]),
            constant(array(weight).reshape(_swapped(shape_of(weight)))),
            _swapped_pair(a.strides),
            _turned_padding(a.padding),
            _swapped_pair(a.dilation),
            int(a.groups),
        )

    def _pool(self, kind: str, call: relax.Call) -> relax.Call:
        a = call.attrs
        return POOLS[kind](
            self._row_of(call.args[0]),
            _swapped_pair(a.pool_size),
            _swapped_pair(a.strides),
            _turned_padding(a.padding),
            _swapped_pair(a.dilation),
            bool(a.ceil_mode),
            bool(a.count_include_pad),
        )

    def _permute(self, var: relax.Var, call: relax.Call) -> relax.Call | None:
        """A permutation that makes a row for the convolutions that read it."""
        users = self.users[var]
        if not users or not all(turns(user, self.definitions[user]) for user in users) or call.attrs.axes is None:
            return None
        n, c, h, w = (int(axis) for axis in call.attrs.axes)
        return relax.op.permute_dims(self._column_of(call.args[0]), [n, c, w, h])


def is_column(expr: relax.Expr) -> bool:
    """Whether a tensor is a float32 image (N, C, H, 1) of several rows."""
    if not isinstance(expr.ty, relax.TensorType) or dtype_of(expr) != "float32":
        return False
    shape = shape_of(expr)
    return len(shape) == 4 and shape[2] > 1 and shape[3] == 1


def is_image_column(expr: relax.Expr) -> bool:
    """A column, or one pixel."""
    return len(shape_of(expr)) == 4 and shape_of(expr)[3] == 1


def turns(var: relax.Var, value: relax.Expr) -> bool:
    """Whether ``var = value`` is a convolution of a column by a constant column."""
    if op_name(value) != "nn.conv2d" or not isinstance(value.args[1], GenericConst) or not _is_plain(value):
        return False
    return is_column(value.args[0]) and shape_of(value.args[1])[3] == 1 and is_image_column(var)


def _is_plain(call: relax.Call) -> bool:
    """(N, C, H, W) without padding beside the column."""
    a = call.attrs
    layout = a.data_layout if op_name(call) == "nn.conv2d" else a.layout
    return str(layout) == "NCHW" and int(a.padding[1]) == int(a.padding[3]) == 0


def _swapped(shape: Sequence[int]) -> tuple[int, ...]:
    return (*shape[:2], shape[3], shape[2])


def _swapped_pair(values: Any) -> tuple[int, int]:
    return int(values[1]), int(values[0])


def _turned_padding(padding: Any) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(p) for p in padding)
    return left, top, right, bottom
