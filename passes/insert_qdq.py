"""The plan, made visible: ``relax.quantize`` and ``relax.dequantize`` around everything that will be integer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph
from qcompile.errors import QCompileError, nearest
from qcompile.formats import added_as, format_of
from qcompile.graph import MainBuilder
from qcompile.ops import Affine
from qcompile.passes.base import array, dtype_of, module_pass, op_name, shape_of
from qcompile.passes.chain import WEIGHTED, Chain, chain_members, find_chains
from qcompile.passes.group_weights import group_refusal, quantize_groups
from qcompile.passes.movement import moved_from
from qcompile.passes.quantized import QuantizedConstant, dequantize, dequantize_constant, quantize, round_to
from qcompile.passes.weights import (
    bias_scales,
    bias_vector,
    narrow_weight,
    quantize_bias,
    quantize_weight,
    storage_refusal,
    weight_axis,
)
from qcompile.plan import QuantPlan, TensorPlan
from qcompile.reference.arithmetic import quantize as encode


def insert_qdq(plan: QuantPlan) -> tvm.ir.transform.ModulePass:
    """Behind each quantized tensor, and in place of the constants of int8 layers::

        y = conv2d(x, w)                     x.q = quantize(x)                    y.weight = dequantize(int8 codes of w)
        z = add(y, b)                ->      x.dq = dequantize(x.q)               z.bias = dequantize(int32 codes of b)
                                             y = conv2d(x.dq, z.weight)
                                             z = add(y, z.bias)
                                             z.q = quantize(z)
                                             z.dq = dequantize(z.q)

    What an int8 layer makes is stored as codes, so everyone reads ``z.dq``. What a float operator makes, or the model
    is given, exists as float32: only int8 layers read its codes. A layer of narrow floats reads roundings of float32
    tensors (``x.bfloat16 = astype(x, "bfloat16")``, ``x.rounded = astype(x.bfloat16, "float32")``).

    A model input in ``plan.integer_inputs`` becomes a
    parameter of codes, an output in ``plan.integer_outputs`` is ``z.q``. Outputs keep their positions.
    """
    return module_pass("InsertQDQ", lambda module: _Inserter(module, plan).run(), insert_qdq.__doc__)


class _Inserter:
    def __init__(self, module: IRModule, plan: QuantPlan):
        self.module, self.plan = module, plan
        self.main = graph.read(module)
        self.definitions, self.users = self.main.definitions(), self.main.users()
        self.chain_of = chain_members(find_chains(self.main))
        self.real: dict[relax.Var, relax.Expr] = {}  # old variable -> what readers of its float32 value read
        self.decoded: dict[relax.Var, relax.Expr] = {}  # old variable -> its codes, dequantized
        self.codes: dict[relax.Var, relax.Expr] = {}
        self.rounded: dict[tuple[relax.Expr, str], relax.Var] = {}  # tensor, type -> its values rounded to that
        self.constants: dict[relax.Var, dict[relax.Expr, relax.Expr]] = {}  # member -> its quantized constants
        self.biases: dict[relax.Var, relax.Expr] = {}  # anchor of a layer without a bias -> one that the plan adds
        made = [var.name for var, _ in self.main.bindings]
        for name in plan.layers:
            if name not in made:
                raise QCompileError("the plan has a layer that the model lacks", node=name, remedy=nearest(name, made))

    def run(self) -> IRModule:
        params = [self._param(p) for p in self.main.params]
        self.builder = MainBuilder(params, self.module)
        for old, new in zip(self.main.params, params, strict=True):
            self._behind(old, new)
        for var, value in self.main.bindings:
            chain = self.chain_of.get(var)
            if chain is not None and chain.anchor.same_as(var):
                self._quantize_constants(chain)
            new = self._emit(var, self._value(var, value))
            self._behind(var, new)
        return self.builder.module([self._output(out) for out in self.main.outputs])

    def _emit(self, var: relax.Var, value: relax.Expr) -> relax.Var:
        """``value`` bound under the old name; behind it, the bias of a layer that has one by the plan only."""
        if var not in self.biases:
            return self.builder.emit(value, var.name)
        product = self.builder.emit(value, f"{var.name}~product")
        return self.builder.emit(relax.op.add(product, self.biases[var]), var.name)

    def is_int8(self, chain: Chain | None) -> bool:
        """Whether a layer computes on codes, whatever its weights are."""
        return chain is not None and chain.name in self.plan.layers and self.plan.layers[chain.name].codes

    def _plan_of(self, name: str) -> TensorPlan:
        if name not in self.plan.tensors:
            remedy = "add the tensor, or make the layer that reads it fp32"
            raise QCompileError("the plan has no scale of this tensor", node=name, remedy=remedy)
        return self.plan.tensors[name]

    def _affine(self, name: str) -> Affine:
        return self._plan_of(name).affine

    def _param(self, param: relax.Var) -> relax.Var:
        if param.name not in self.plan.integer_inputs:
            return param
        q = self._affine(param.name)
        return relax.Var(param.name, relax.TensorType(shape_of(param), q.dtype))

    def _behind(self, old: relax.Var, new: relax.Var) -> None:
        """The codes of a tensor that was just defined, and who reads what of it."""
        self.real[old] = new
        if old.name not in self.plan.tensors or not isinstance(old.ty, relax.TensorType) or dtype_of(old) != "float32":
            return
        q = self._affine(old.name)
        given = old.name in self.plan.integer_inputs
        codes = new if given else self.builder.emit(quantize(new, q), f"{old.name}.q")
        self.codes[old] = codes
        self.decoded[old] = self.builder.emit(dequantize(codes, q), f"{old.name}.dq")
        if given or self._makes_codes(old):
            self.real[old] = self.decoded[old]

    def _makes_codes(self, var: relax.Var) -> bool:
        """Whether a quantized tensor is stored as codes alone: an int8 layer's, and what is moved of such."""
        while (source := moved_from(self.definitions.get(var), self.definitions)) is not None:
            var = source
        chain = self.chain_of.get(var)
        makes = self.is_int8(chain) and chain.kind != "gather"
        return makes or var.name in self.plan.integer_inputs

    def _value(self, var: relax.Var, value: relax.Expr) -> relax.Expr:
        as_codes = self._takes_codes(var, value)
        dtype = self._reads(var)
        value = graph.substitute(value, {old: self._read(old, as_codes, dtype) for old in graph.reads(value)})
        constants = self.constants.get(var)
        if constants:
            args = [constants.get(arg, arg) for arg in value.args]
            return relax.Call(value.op, args, value.attrs, value.ty_args)
        return value

    def _takes_codes(self, var: relax.Var, value: relax.Expr) -> bool:
        """Whether an operator reads codes of what exists as float32 too: int8 layers, and what moves codes to them."""
        if op_name(value) == "split":
            return any(user.name in self.plan.tensors for user in self.users[var])
        moves = moved_from(value, self.definitions) is not None
        return self.is_int8(self.chain_of.get(var)) or (moves and var.name in self.plan.tensors)

    def _reads(self, var: relax.Var) -> str:
        """The dtype of floats that the operator of a variable reads, or adds, as in ``qcompile.formats``."""
        chain = self.chain_of.get(var)
        layer = self.plan.layers.get(chain.name) if chain is not None else None
        if layer is None or layer.codes:
            return "float32"
        dtype = format_of(layer.format).activations
        return dtype if chain.anchor.same_as(var) else added_as(dtype)

    def _read(self, old: relax.Var, as_codes: bool, dtype: str) -> relax.Expr:
        """What stands for an old variable: its dequantized codes, its rounded values, or what others read of it."""
        if as_codes and old in self.decoded:
            return self.decoded[old]
        real, maker = self.real[old], self.chain_of.get(old)
        if dtype == "float32" or (maker is not None and not maker.out.same_as(old)):  # sums are not rounded
            return real
        if (real, dtype) not in self.rounded:
            self.rounded[real, dtype] = round_to(self.builder.emit, real, dtype, old.name)
        return self.rounded[real, dtype]

    def _quantize_constants(self, chain: Chain) -> None:
        """Emits the integer weight, bias or constant operand of an int8 layer."""
        if not self.is_int8(chain):
            if chain.name in self.plan.layers and format_of(self.plan.layers[chain.name].format).weights != "float32":
                self._stored_weight(chain)
            return
        if chain.kind in WEIGHTED:
            self._weighted(chain)
        elif chain.kind == "gather":
            for member, old, what in zip(chain.members, (chain.weight, chain.bias), ("weight", "bias"), strict=False):
                axis = len(shape_of(old)) - 2  # (..., rows, D), with a scale for each row
                name = f"{chain.name}.{what}"
                self._constant(member, old, self._codes(chain, old, axis, name), name)
        elif chain.kind == "binary":
            for operand in chain.inputs:
                name = f"{chain.name}.weight"
                if array(operand) is not None:
                    self._constant(chain.anchor, operand, _encode(array(operand), self._affine(name)), name)

    def _weighted(self, chain: Chain) -> None:
        name = f"{chain.name}.weight"
        axis = weight_axis(chain)
        weight = self._codes(chain, chain.weight, axis, name)
        scale = self._scales(name, shape_of(chain.weight)[axis])
        self._constant(chain.anchor, chain.weight, weight, name)
        shift = self._shift(chain)
        if chain.bias is None and not shift:
            return
        x = self._affine(chain.inputs[0].name)
        channels = weight_channels(chain)
        bias = QuantizedConstant(
            quantize_bias(chain, x, scale, shift).reshape(channels),
            bias_scales(chain, x, scale).astype(np.float32),
            np.zeros(int(np.prod(channels)), np.int32),
            axis_of(channels),
        )
        if chain.bias is None:
            self.biases[chain.anchor] = self.builder.emit(dequantize_constant(bias), f"{chain.name}.bias")
        else:
            self._constant(chain.members[1], chain.bias, bias, f"{chain.name}.bias")

    def _shift(self, chain: Chain) -> tuple[float, ...]:
        """What the plan adds to the bias of a layer: nothing, or a number for each output channel."""
        name = f"{chain.name}.bias"
        shift = self.plan.tensors[name].shift if name in self.plan.tensors else ()
        if shift and (len(shift) != (wanted := bias_vector(chain).size) or not np.isfinite(shift).all()):
            remedy = f"give {wanted} finite numbers"
            raise QCompileError(f"the plan's shift of this bias has {len(shift)} numbers", node=name, remedy=remedy)
        return shift

    def _stored_weight(self, chain: Chain) -> None:
        """The weight of a layer that computes in float32, as codes or in a narrower type of floats."""
        name, row = f"{chain.name}.weight", format_of(self.plan.layers[chain.name].format)
        if (reason := storage_refusal(chain, row)) is not None:
            raise QCompileError(reason, node=chain.name, remedy="make the layer fp32")
        if "float8" in row.weights:
            axis = weight_axis(chain)
            scale = self._scales(name, shape_of(chain.weight)[axis])
            weight = narrow_weight(array(chain.weight), scale, axis, row.weights)
            self._constant(chain.anchor, chain.weight, weight, name)
            return
        if "float" not in row.weights:
            self._constant(chain.anchor, chain.weight, self._codes(chain, chain.weight, weight_axis(chain), name), name)
            self._shifted_bias(chain)
            return
        tables = {"bias": chain.bias} if chain.kind == "gather" and chain.bias is not None else {}
        for member, (what, old) in zip(chain.members, {"weight": chain.weight, **tables}.items(), strict=False):
            narrow = relax.const(array(old).astype(row.weights))
            new = self.builder.emit(relax.op.astype(narrow, "float32"), f"{chain.name}.{what}")
            self.constants.setdefault(member, {})[old] = new

    def _shifted_bias(self, chain: Chain) -> None:
        """The bias of a layer that adds floats, with what the plan adds to it."""
        shift = self._shift(chain)
        if not shift:
            return
        bias = relax.const((bias_vector(chain) + np.array(shift, np.float32)).reshape(weight_channels(chain)))
        if chain.bias is None:
            self.biases[chain.anchor] = bias
        else:
            self.constants.setdefault(chain.members[1], {})[chain.bias] = bias

    def _codes(self, chain: Chain, constant: relax.Expr, axis: int, name: str) -> QuantizedConstant:
        """A weight or a table in the codes that the plan says, with a scale for each slice of ``axis``."""
        plan = self._plan_of(name)
        scale = self._scales(name, shape_of(constant)[axis])
        try:
            moves = plan.rounding(shape_of(constant))
        except ValueError as error:
            raise QCompileError(
                f"the plan's moves of codes do not fit this weight: {error}", node=name, remedy="make the plan again"
            ) from None
        if not plan.group:
            return quantize_weight(array(constant), scale, axis, moves)
        reason = group_refusal(chain, plan.group) if constant is chain.weight else "it is not the layer's weight"
        if reason is not None:
            raise QCompileError(f"no weights by groups here: {reason}", node=name, remedy="make the layer int8")
        outputs = shape_of(constant)[axis]
        steps = self._group_scale(name, outputs, prod(shape_of(constant)) // outputs)
        return quantize_groups(array(constant), scale, steps, plan.group, axis, moves)

    def _scales(self, name: str, count: int) -> np.ndarray:
        """The scales that the plan has of a constant: one, or ``count`` of them."""
        scale = np.array(self._plan_of(name).scale, np.float32)
        if scale.size not in (1, count):
            wanted = f"give one, or {count}"
            raise QCompileError(f"the plan has {scale.size} scales of this weight", node=name, remedy=wanted)
        return scale

    def _group_scale(self, name: str, outputs: int, inputs: int) -> np.ndarray:
        """The integer scales (outputs, groups) that the plan has of an int4 weight."""
        plan = self._plan_of(name)
        if len(plan.group_scale) != outputs * inputs // plan.group or 0 in plan.group_scale:
            wanted = f"give {outputs} x {inputs // plan.group} of them, each from 1 to 255"
            raise QCompileError("the plan's scales of groups do not fit this weight", node=name, remedy=wanted)
        return np.frombuffer(plan.group_scale, np.uint8).reshape(outputs, -1)

    def _constant(self, member: relax.Var, old: relax.Expr, new: QuantizedConstant, name: str) -> None:
        self.constants.setdefault(member, {})[old] = self.builder.emit(dequantize_constant(new), name)

    def _output(self, out: relax.Expr) -> relax.Expr:
        if not isinstance(out, relax.Var):
            return out
        return self.codes[out] if out.name in self.plan.integer_outputs else self.real[out]


def weight_channels(chain: Chain) -> tuple[int, ...]:
    """The shape of a bias with one number for each output channel: (O,), (1, O, 1) or (1, O, 1, 1)."""
    channels = bias_vector(chain).size
    ndim = len(shape_of(chain.out))
    return (channels,) if chain.kind == "dense" else (1, channels, *[1] * (ndim - 2))


def axis_of(channels: Sequence[int]) -> int:
    return 0 if len(channels) == 1 else 1


def _encode(values: np.ndarray, q: Affine) -> QuantizedConstant:
    codes = encode(values, q)
    return QuantizedConstant(codes, np.array(q.scale, np.float32), np.array(q.zero_point, q.dtype), -1)
