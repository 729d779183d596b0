"""Random small modules in integer form: chains and branches of composites and data movement, several outputs.

Single layers are in ``tests.properties.cases``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from tvm import relax
from tvm.ir import IRModule

from qcompile import ops
from qcompile.graph import MainBuilder
from qcompile.ops import Affine
from qcompile.reference.elementwise import SOFTMAX_MAX_ELEMENTS
from tests.properties import layers, values
from tests.properties.cases import UINT8, Case, images
from tests.properties.values import Draw

MAX_ELEMENTS = 20_000  # of one tensor
WITH_RESIDUAL = (ops.Conv2d, ops.ConvTranspose2d, ops.Dense)


@dataclass(frozen=True)
class IntegerGraph:
    """A module in integer form, and an array for each of its inputs."""

    module: IRModule
    feeds: dict[str, np.ndarray]

    def __repr__(self) -> str:
        return self.module.script()


def composite(
    spec: ops.Spec, arg_types: Sequence[relax.Type], out_type: relax.Type, layer: str = "layer"
) -> relax.Function:
    """A well-formed private function that carries ``spec``; its body is zeros, for who reads only the spec."""
    params = [relax.Var(f"arg{i}", ty) for i, ty in enumerate(arg_types)]
    builder = relax.BlockBuilder()
    shape = [int(extent) for extent in out_type.shape]
    result = builder.normalize(relax.op.zeros(shape, str(out_type.dtype)))
    var = relax.Var("result", result.ty)
    body = builder.normalize(relax.SeqExpr([relax.BindingBlock([relax.VarBinding(var, result)])], var))
    return ops.attach(relax.Function(params, body, out_type), spec, layer)


def tensor_type(array: np.ndarray) -> relax.TensorType:
    return relax.TensorType(array.shape, str(array.dtype))


def module_of(case: Case) -> IntegerGraph:
    """A module of one layer: activations are the inputs "x0", "x1", ..., the rest constants; the output is "y"."""
    params = {i: relax.Var(f"x{n}", tensor_type(case.args[i])) for n, i in enumerate(case.activations)}
    args = [params.get(i, relax.const(array)) for i, array in enumerate(case.args)]
    builder = MainBuilder(list(params.values()))
    out_type = relax.TensorType(case.shape, case.dtype)
    function = composite(case.spec, [tensor_type(a) for a in case.args], out_type, "layer")
    y = builder.call(function, args, "y", case.spec.op)
    feeds = {p.name: case.args[i] for i, p in params.items()}
    return IntegerGraph(builder.module([y]), feeds)


@dataclass(frozen=True)
class Tensor:
    """A variable; q is None for float32."""

    var: relax.Var
    shape: tuple[int, ...]
    q: Affine | None


class _Writer:
    """Draws one step after the other onto a module."""

    def __init__(self, draw: Draw, dtypes: Sequence[str]):
        self.draw, self.dtypes = draw, dtypes
        self.tensors: list[Tensor] = []
        self.feeds: dict[str, np.ndarray] = {}
        params = []
        for i in range(draw(st.sampled_from((1, 1, 2)))):
            shape, q = draw(images()), draw(values.affines(dtypes))
            self.feeds[f"input:{i}"] = values.codes(draw, shape, q)
            params.append(relax.Var(f"input:{i}", tensor_type(self.feeds[f"input:{i}"])))
            self.tensors.append(Tensor(params[-1], shape, q))
        self.builder = MainBuilder(params)
        self.steps = 0

    def emit(self, value: relax.Expr, q: Affine | None) -> None:
        self.steps += 1
        var = self.builder.emit(value, f"step{self.steps}/out:0")
        self.tensors.append(Tensor(var, tuple(int(e) for e in var.ty.shape), q))

    def call(self, spec: ops.Spec, args: Sequence[relax.Expr], shape: tuple[int, ...], q: Affine | None) -> None:
        out_type = relax.TensorType(shape, q.dtype if q else "float32")
        layer = f"step{self.steps + 1}"
        function = composite(spec, [arg.ty for arg in args], out_type, layer)
        gvar = self.builder.add_function(function, spec.op)
        self.emit(relax.Call(gvar, list(args)), q)

    def step(self) -> None:
        """One more layer, mostly on the newest tensor."""
        draw = self.draw
        inputs = [t for t in self.tensors if t.q]
        x = draw(st.sampled_from([inputs[-1], inputs[-1], *inputs]))
        steps = [self.layer, self.layer, self.layer, self.elementwise, self.move]
        draw(st.sampled_from(steps))(x)
        if self.tensors[-1].q is None and draw(st.booleans()):
            self.quantize(self.tensors[-1])

    def layer(self, x: Tensor) -> None:
        """A layer with an epilogue; where a tensor of the result's shape exists, perhaps as its residual."""
        draw = self.draw
        makes = [layers.dense, layers.mean]
        if max(x.shape) <= SOFTMAX_MAX_ELEMENTS:
            makes.append(layers.softmax)
        if len(x.shape) == 4:
            makes += [layers.conv2d, layers.conv2d, layers.conv_transpose2d, layers.avg_pool2d, layers.resize_linear]
        make = draw(st.sampled_from(makes))
        layer = make(draw, x.shape, x.q, draw(values.epilogues(self.dtypes, residual=False)))
        if not layer.shape or np.prod(layer.shape) > MAX_ELEMENTS:
            return
        args = [x.var, *(relax.const(c) for c in layer.constants)]
        spec = layer.spec
        partners = [t for t in self.tensors if t.shape == layer.shape and t.q]
        if partners and isinstance(spec, WITH_RESIDUAL) and draw(st.booleans()):
            partner = draw(st.sampled_from(partners))
            spec = replace(spec, epilogue=replace(spec.epilogue, residual=partner.q))
            args.append(partner.var)
        self.call(spec, args, layer.shape, spec.epilogue.out)

    def elementwise(self, x: Tensor) -> None:
        """binary, lookup, requantize or concat."""
        draw = self.draw
        kind = draw(st.sampled_from(("binary", "lookup", "requantize", "concat")))
        out = draw(values.affines(self.dtypes))
        if kind == "lookup":
            table = relax.const(values.codes(draw, (256,), out))
            self.call(ops.Lookup("table", x.q, out), [x.var, table], x.shape, out)
        elif kind == "requantize":
            self.call(ops.Requantize(x.q, out), [x.var], x.shape, out)
        elif kind == "binary":
            partners = [t for t in self.tensors if t.q and t.shape == x.shape]
            b = draw(st.sampled_from(partners))
            epilogue = draw(values.epilogues(self.dtypes, residual=False))
            spec = ops.Binary(draw(st.sampled_from(("add", "subtract", "multiply"))), x.q, b.q, epilogue)
            self.call(spec, [x.var, b.var], x.shape, epilogue.out)
        else:
            axis = draw(st.integers(0, len(x.shape) - 1))
            partners = [t for t in self.tensors if t.q and _concatenates(t.shape, x.shape, axis)]
            b = draw(st.sampled_from(partners))
            shape = (*x.shape[:axis], x.shape[axis] + b.shape[axis], *x.shape[axis + 1 :])
            out = draw(st.sampled_from((x.q, out)))
            self.call(ops.Concat(axis, (x.q, b.q), out), [x.var, b.var], shape, out)

    def move(self, x: Tensor) -> None:
        """A plain Relax operator on codes, or a channel shuffle."""
        draw, shape = self.draw, x.shape
        kinds = ["reshape", "permute", "slice", "split", "pad"]
        if len(shape) == 4:
            kinds += ["max_pool", "nearest", "shuffle", "shuffle"]
        kind = draw(st.sampled_from(kinds))
        axis = draw(st.integers(0, len(shape) - 1))
        if kind == "reshape":
            self.emit(relax.op.reshape(x.var, draw(st.sampled_from(((shape[0], -1), (-1,), (1, *shape[::-1]))))), x.q)
        elif kind == "permute":
            self.emit(relax.op.permute_dims(x.var, draw(st.permutations(range(len(shape))))), x.q)
        elif kind == "slice":
            begin = draw(st.integers(0, shape[axis] - 1))
            end = draw(st.integers(begin + 1, shape[axis]))
            self.emit(relax.op.strided_slice(x.var, [axis], [begin], [end], [draw(st.integers(1, 3))]), x.q)
        elif kind == "split" and shape[axis] > 1:
            at = draw(st.integers(1, shape[axis] - 1))
            self.steps += 1
            parts = self.builder.emit(relax.op.split(x.var, [at], axis), f"step{self.steps}/parts")
            for i in range(2):
                self.emit(relax.TupleGetItem(parts, i), x.q)
        elif kind == "pad":
            widths = [draw(st.integers(0, 2)) for _ in range(2 * len(shape))]
            self.emit(relax.op.nn.pad(x.var, widths, "constant", x.q.zero_point), x.q)
        elif kind == "max_pool":
            kernel = tuple(min(draw(st.integers(1, 3)), e) for e in shape[2:])
            padding = tuple(draw(st.integers(0, k - 1)) for k in kernel * 2)
            strides = draw(st.sampled_from(((1, 1), (2, 2), (3, 1))))
            self.emit(relax.op.nn.max_pool2d(x.var, kernel, strides, padding, (1, 1), draw(st.booleans())), x.q)
        elif kind == "nearest":
            size = tuple(e * draw(st.integers(1, 2)) for e in shape[2:])
            resized = relax.op.image.resize2d(
                x.var,
                size,
                layout="NCHW",
                method="nearest_neighbor",
                coordinate_transformation_mode="asymmetric",
                rounding_method="floor",
            )
            self.emit(resized, x.q)
        elif kind == "shuffle":
            groups = draw(st.sampled_from([g for g in (1, 2, 3, 4, shape[1]) if shape[1] % g == 0]))
            self.call(ops.ChannelShuffle(groups), [x.var], shape, x.q)

    def quantize(self, x: Tensor) -> None:
        q = self.draw(values.affines(self.dtypes))
        scale, zero_point = relax.const(q.scale, "float32"), relax.const(q.zero_point, q.dtype)
        self.emit(relax.op.quantize(x.var, scale, zero_point, -1, q.dtype), q)

    def module(self) -> IRModule:
        """Returns the newest tensor and perhaps some others, an input even."""
        others = self.draw(st.lists(st.sampled_from(self.tensors), max_size=2))
        outputs = dict.fromkeys([self.tensors[-1].var, *(t.var for t in others)])
        return self.builder.module(outputs)


def _concatenates(a: tuple[int, ...], b: tuple[int, ...], axis: int) -> bool:
    return len(a) == len(b) and all(i == axis or x == y for i, (x, y) in enumerate(zip(a, b, strict=True)))


@st.composite
def integer_graphs(draw: Draw, max_steps: int = 6, dtypes: Sequence[str] = UINT8) -> IntegerGraph:
    """Modules of one to ``max_steps`` steps, on code inputs."""
    writer = _Writer(draw, dtypes)
    for _ in range(draw(st.integers(1, max_steps))):
        writer.step()
    return IntegerGraph(writer.module(), writer.feeds)
