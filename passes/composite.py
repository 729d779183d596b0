"""Building the private function of a layer: its specification, its arguments, and a body in real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tvm import relax

from qcompile import ops
from qcompile.formats import added_as
from qcompile.ops import Affine, Epilogue
from qcompile.passes.base import shape_of
from qcompile.passes.quantized import Operand, dequantize, quantize, round_to


@dataclass(slots=True)
class Composite:
    """The function of one layer while it is written.

    args: what the layer is called with. rounding: the type that tensors of floats are rounded to before anything else,
    a residual in 16 bits.
    """

    args: Sequence[relax.Expr]
    rounding: str = "float32"
    params: list[relax.Var] = field(init=False)
    _bindings: list[relax.VarBinding] = field(init=False)
    _builder: relax.BlockBuilder = field(init=False)

    def __post_init__(self) -> None:
        self._builder = relax.BlockBuilder()
        self.params = [relax.Var(f"arg{i}", self._builder.normalize(arg).ty) for i, arg in enumerate(self.args)]
        self._bindings = []

    def emit(self, value: relax.Expr) -> relax.Var:
        value = self._builder.normalize(value)
        var = relax.Var(f"v{len(self._bindings)}", value.ty)
        self._bindings.append(relax.VarBinding(var, value))
        return var

    def real(self, index: int, affine: Affine | None, rounding: str | None = None) -> relax.Var:
        """Parameter ``index`` in real numbers."""
        param, rounding = self.params[index], self.rounding if rounding is None else rounding
        if affine is not None:
            return self.emit(dequantize(param, affine))
        return param if rounding == "float32" else round_to(lambda v, _: self.emit(v), param, rounding, "")

    def finish(self, v: relax.Var, epilogue: Epilogue) -> relax.Var:
        """Residual (the last parameter), clip and quantize, as ``ops.Epilogue`` says."""
        if epilogue.residual is not None or epilogue.residual_is_float:
            v = self.emit(relax.op.add(v, self.real(-1, epilogue.residual, added_as(self.rounding))))
        if epilogue.clip is not None:
            v = self.emit(relax.op.clip(v, *epilogue.clip))
        return v if epilogue.out is None else self.emit(quantize(v, epilogue.out))

    def function(self, result: relax.Var, spec: ops.Spec, layer: str) -> relax.Function:
        body = self._builder.normalize(relax.SeqExpr([relax.BindingBlock(self._bindings)], result))
        return ops.attach(relax.Function(self.params, body, result.ty), spec, layer)


def scale_by_channel(scale: relax.Expr, ndim: int, axis: int) -> relax.Call:
    """A vector in a shape that broadcasts along ``axis``."""
    shape = [1] * ndim
    shape[axis] = -1
    return relax.op.reshape(scale, shape)


def scaled_codes(composite: Composite, codes: int, group_scale: int) -> relax.Var:
    """Int4 codes (N, K) of one parameter times the scales of their groups (N, groups), another one; int16.

    Of a convolution the codes are (O, I, KH, KW), and K is (KH, KW, I).
    """
    weight = composite.params[codes]
    (outputs, groups), ndim = shape_of(composite.params[group_scale]), len(shape_of(weight))
    wide = composite.emit(relax.op.astype(weight, "int16"))
    if ndim > 2:
        wide = composite.emit(relax.op.permute_dims(wide, [0, *range(2, ndim), 1]))
    whole = shape_of(wide)
    wide = composite.emit(relax.op.reshape(wide, (outputs, groups, -1)))
    scale = composite.emit(relax.op.astype(composite.params[group_scale], "int16"))
    scale = composite.emit(relax.op.reshape(scale, (outputs, groups, 1)))
    scaled = composite.emit(relax.op.reshape(composite.emit(relax.op.multiply(wide, scale)), whole))
    return composite.emit(relax.op.permute_dims(scaled, [0, ndim - 1, *range(1, ndim - 1)])) if ndim > 2 else scaled


def epilogue_of(out: Affine | None, clip: tuple[float, float] | None, residual: Operand | None) -> Epilogue:
    affine = residual.affine if residual else None
    return Epilogue(out, clip, affine, residual is not None and affine is None)
