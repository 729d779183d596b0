"""The composite operators of the integer (and fused float) form, and how a Relax function carries one.

After folding, ``main`` calls private Relax functions, one for each fused layer. Such a function

* has a body that says what the layer means in real numbers (``dequantize``, ``conv2d``, ``add``, ``quantize``),
* carries one of the dataclasses below in its attributes, which says what is computed **to the bit**: the oracle
  (``qcompile.reference``) interprets it, a kernel (``qcompile.targets.kernels``) computes the same.

Arrays (weights, biases, multipliers, tables) are arguments of the call, numbers are fields. ``Affine | None``: None
means that the tensor is float32; a spec whose inputs are all float32 is a float layer.

Shapes are logical ONNX shapes (N, C, H, W); 1-D convolution and pooling use (N, C, W) tensors with the fields of their
2-D form and a height of 1. Where codes live in memory is decided later (``targets.storage``).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

if TYPE_CHECKING:
    from tvm import relax

ATTR_SPEC = "qcompile.spec"  # JSON of the spec
ATTR_LAYER = "qcompile.layer"  # ONNX node name of the layer


@dataclass(frozen=True, slots=True)
class Affine:
    """Per-tensor quantization of an activation: ``real = scale * (code - zero_point)``.

    ``code`` is in [0, 255] for "uint8" (the rule for activations), [-128, 127] for "int8"; ``scale`` is a float32.
    """

    scale: float
    zero_point: int
    dtype: str = "uint8"

    @property
    def qmin(self) -> int:
        return 0 if self.dtype == "uint8" else -128

    @property
    def qmax(self) -> int:
        return 255 if self.dtype == "uint8" else 127


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What follows the sum or product of a layer.

    With ``v`` a float32 value in units of ``out.scale`` (of 1 if ``out`` is None), see each spec for how it arises::

        v = v + f32(r - residual.zero_point) * f32(residual.scale / out.scale)     if residual (r is the last argument)
        q = clip(round_half_even(v), lo - z, hi - z) + z           if out:  [lo, hi] = code_bounds(out, clip)
        y = clip(v, *clip)                                         if not out

    A float32 residual (``residual_is_float``) is added as it is; only a float result may have one.
    """

    out: Affine | None = None
    clip: tuple[float, float] | None = None  # real bounds of a fused relu (0, inf), relu6 (0, 6), clip
    residual: Affine | None = None
    residual_is_float: bool = False


class _Weighted:
    """What layers with weights have in common.

    weights: dtype that the weights are stored in. Left out, int8 where x is codes, else float32.
    group: of int4 weights, how many neighbours along the reduction share an integer scale.
    reads: dtype that a layer of floats rounds to what it reads. Left out, bfloat16 beside such weights, else float32.
    """

    __slots__ = ()
    x: Affine | None
    weights: str
    group: int
    reads: str

    def __post_init__(self) -> None:
        default = "int4" if self.group else "int8" if self.x is not None else "float32"
        object.__setattr__(self, "weights", self.weights or default)
        object.__setattr__(self, "reads", self.reads or ("bfloat16" if self.weights == "bfloat16" else "float32"))

    @property
    def activations(self) -> str:
        """The dtype that the layer reads, as in ``qcompile.formats``."""
        return "uint8" if self.x is not None else self.reads

    @property
    def scaled(self) -> bool:
        """Whether the weights have a scale for each output channel, and so a multiplier is an argument."""
        return self.weights.startswith(("int", "float8"))


@dataclass(frozen=True, slots=True)
class Conv2d(_Weighted):
    """Convolution, window sum and epilogue.

    args: x (N, C, H, W); weight (O, C/groups, KH, KW); bias (O,); multiplier (O,); [residual, of the output's shape]

    integer (``x`` set): x codes, weight int8, bias int32, multiplier float32 = f32(s_x s_w[o] / s_out); s_out = 1
    if there is no out::

        acc = sum (x - z_x) * w + bias            exact int32; padding counts as x = z_x
        v   = f32(acc) * multiplier[o]

    float (``x`` None): float32, no multiplier argument; ``v = sum x * w + bias``. What the weights are stored in
    (``weights``) says what else there is:

    bfloat16   x and the residual are rounded to it first, to nearest, ties to even; so they are to float16 if ``reads``
               says so; float16 saturates at its largest number
    int8       weights are codes: a multiplier argument has their scales, ``v = (sum x * w) * multiplier[o] + bias``
    int4       so are these, here int8 in [-8, 7]; each ``group`` neighbours have a scale beside that (see ``Dense``),
               in integer layers, too: group_scale uint8, behind the multiplier. Of a convolution, whose C/groups it
               divides, it is (O, KH * KW * C/groups / group), in the order of (KH, KW, C/groups).
    float16    weights are rounded; what else, ``reads`` says
    float8     (``_e4m3fn``, ``_e5m2``) so is x, which saturates; a residual is not. A multiplier argument has the
               weights' scales, as beside int8

    Sums of floats are taken in any order, so they are equal within float tolerance.
    """

    op: ClassVar[str] = "conv2d"
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int
    x: Affine | None
    epilogue: Epilogue
    weights: str = ""
    group: int = 0
    reads: str = ""


@dataclass(frozen=True, slots=True)
class ConvTranspose2d(_Weighted):
    """Transposed convolution; arguments and arithmetic as ``Conv2d``, weight (C, O/groups, KH, KW)."""

    op: ClassVar[str] = "conv_transpose2d"
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    x: Affine | None
    epilogue: Epilogue
    weights: str = ""
    group: int = 0
    reads: str = ""


@dataclass(frozen=True, slots=True)
class Dense(_Weighted):
    """``x @ weight.T``: Gemm, and MatMul with a constant right operand.

    args: x (..., K); weight (N, K); bias (N,); multiplier (N,) (integer weights only); [group_scale (N, K / group)];
    [residual (..., N)]. Arithmetic as ``Conv2d``.

    With ``group`` (which divides K) the weights are int4, here int8 in [-8, 7], and each ``group`` neighbours of an
    output channel n have an integer scale of their own, group_scale uint8, beside the multiplier of the channel::

        acc = sum_g group_scale[n, g] * (sum_{k in group g} (x[k] - z_x) * w[n, k]) + bias[n]         exact int32
    """

    op: ClassVar[str] = "dense"
    x: Affine | None
    epilogue: Epilogue
    group: int = 0
    weights: str = ""
    reads: str = ""


@dataclass(frozen=True, slots=True)
class Binary:
    """Element-wise ``a op b`` with numpy broadcasting. args: a, b. s_out = 1 if there is no ``epilogue.out``.

    add:       v = f32(a - z_a) * f32(s_a / s_out) + f32(b - z_b) * f32(s_b / s_out)
    subtract:  v = f32(a - z_a) * f32(s_a / s_out) - f32(b - z_b) * f32(s_b / s_out)
    multiply:  v = f32((a - z_a) * (b - z_b)) * f32(s_a s_b / s_out)
    Products and the sum are rounded one by one (no FMA). Float: both Affines None, ``v = a op b``.
    """

    op: ClassVar[str] = "binary"
    kind: str  # "add" | "subtract" | "multiply"
    a: Affine | None
    b: Affine | None
    epilogue: Epilogue


@dataclass(frozen=True, slots=True)
class Lookup:
    """Any function of one quantized tensor, tabulated. args: x codes; table (256,) of the output's dtype.

    ``y = table[x - qmin]``. ``function`` names it for reports ("sigmoid", "hard_swish").
    """

    op: ClassVar[str] = "lookup"
    function: str
    x: Affine
    out: Affine | None


@dataclass(frozen=True, slots=True)
class Requantize:
    """The same real value in other codes. args: x.

    ``q = clip(round_half_even(f32(x - z_x) * f32(s_x / s_out)), qmin - z, qmax - z) + z``
    """

    op: ClassVar[str] = "requantize"
    x: Affine
    out: Affine


@dataclass(frozen=True, slots=True)
class AvgPool2d:
    """Average pooling. args: x (N, C, H, W) codes; multiplier (KH * KW + 1,) float32 by number of valid elements.

    ``v = f32(sum over valid (x - z_x)) * multiplier[count]``; multiplier[count] = f32(s_x / (count s_out)).
    With ``count_include_pad`` the count is always KH * KW. Float: no multiplier argument, ``v = sum / count``.
    """

    op: ClassVar[str] = "avg_pool2d"
    window: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    ceil_mode: bool
    count_include_pad: bool
    x: Affine | None
    epilogue: Epilogue


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over ``axes`` (global average pooling is axes (2, 3) with keepdims). args: x.

    ``v = f32(sum (x - z_x)) * f32(s_x / (count s_out))``
    """

    op: ClassVar[str] = "mean"
    axes: tuple[int, ...]
    keepdims: bool
    x: Affine | None
    epilogue: Epilogue


@dataclass(frozen=True, slots=True)
class Concat:
    """Concatenation of tensors with different codes into one. args: the inputs.

    Each input is requantized by the rule of ``Requantize`` unless its Affine equals ``out``.
    """

    op: ClassVar[str] = "concat"
    axis: int
    inputs: tuple[Affine, ...]
    out: Affine


@dataclass(frozen=True, slots=True)
class ResizeLinear:
    """Bilinear resize (ONNX Resize, mode linear). args: x (N, C, H, W); index_h, weight_h (OH, 2) int32; same for w.

    Interpolation weights have 11 fraction bits and sum to 2048 on each axis, so the sum is exact in int32::

        acc = sum_ij weight_h[oh, i] * weight_w[ow, j] * (x[index_h[oh, i], index_w[ow, j]] - z_x)
        v   = f32(acc) * f32(s_x / (2^22 s_out))
    """

    op: ClassVar[str] = "resize_linear"
    x: Affine
    epilogue: Epilogue


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over ``axis``. args: x codes; exp_table (256,) int32.

    exp_table[d] = round(2^22 exp(-s_x d)); with d = max(x) - x: e = exp_table[d], total = sum e (int32 while the axis
    has fewer than 512 elements, the spec is refused beyond)::

        v = f32(e) * (f32(1 / s_out) / f32(total))        one division an axis, then one product
    """

    op: ClassVar[str] = "softmax"
    axis: int
    x: Affine
    epilogue: Epilogue


@dataclass(frozen=True, slots=True)
class ChannelShuffle:
    """``reshape (N, g, C/g, ...) -> transpose -> reshape``. args: x.

    Channel c of the output is channel (c % g) * (C/g) + c // g.
    """

    op: ClassVar[str] = "channel_shuffle"
    groups: int


@dataclass(frozen=True, slots=True)
class Gather:
    """Rows of a constant table (an embedding), and a constant (that of positions) added to them.

    args: table int8 (V, D); scale (V,) float32; indices, int64 or int32, of any shape; [group_scale uint8
    (V, D / group)]; [addend int8 (R, D); addend_scale (R,) float32]. The result is float32 of the indices' shape and D;
    its row i is ::

        y[i] = f32(table[v]) * scale[v]                                                 v = indices[i] mod V
        y[i] = f32(table[v]) * scale[v] + f32(addend[i mod R]) * addend_scale[i mod R]

    The table, and with it the constant that is added, may be float16 instead; the scales are 1 then.

    With ``group`` the table is int4, here int8 in [-8, 7], and ``table[v]`` above stands for its codes times the scale
    of their group: ``table[v, d] * group_scale[v, d / group]``.

    Remainders are not negative: index -1 is the last row, as in ONNX. An index outside of [-V, V) wraps around, so
    nothing outside of the table is read. Products and the sum are rounded one by one (no FMA).
    """

    op: ClassVar[str] = "gather"
    group: int = 0


Spec = (
    Conv2d
    | ConvTranspose2d
    | Dense
    | Binary
    | Lookup
    | Requantize
    | AvgPool2d
    | Mean
    | Concat
    | ResizeLinear
    | Softmax
    | ChannelShuffle
    | Gather
)
SPECS: dict[str, type] = {cls.op: cls for cls in get_args(Spec)}


def to_json(spec: Spec) -> str:
    return json.dumps({"op": spec.op, **dataclasses.asdict(spec)}, sort_keys=True)


@lru_cache(maxsize=4096)  # every pass asks for every layer's; specs are values
def from_json(text: str) -> Spec:
    fields = json.loads(text)
    return _decode(SPECS[fields.pop("op")], fields)


def _decode(cls: Any, fields: dict[str, Any]) -> Any:
    hints = get_type_hints(cls)
    return cls(**{name: _decode_value(hints[name], value) for name, value in fields.items()})


def _decode_value(hint: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return _decode(next(t for t in (hint, *get_args(hint)) if dataclasses.is_dataclass(t)), value)
    if isinstance(value, list):
        element = next((t for t in get_args(hint) if dataclasses.is_dataclass(t)), None)
        return tuple(_decode(element, v) if isinstance(v, dict) else v for v in value)
    return value


def spec_of(function: relax.Function) -> Spec | None:
    """The spec that a composite function carries, None for any other function."""
    text = function.attrs.get(ATTR_SPEC) if function.attrs else None
    return None if text is None else from_json(str(text))


def layer_of(function: relax.Function) -> str:
    """The ONNX node name of a composite function's main operator."""
    return str(function.attrs[ATTR_LAYER])


def attach(function: relax.Function, spec: Spec, layer: str) -> relax.Function:
    """``function`` as a private composite that carries ``spec``."""
    return function.with_attrs({ATTR_SPEC: to_json(spec), ATTR_LAYER: layer, "Composite": f"qcompile.{spec.op}"})
