"""Chooses the storage of every tensor of the integer (or fused float) form, once for the whole graph.

An analysis, not a rewrite: ``lower_layers`` reads its result. Images that a convolution, a pooling or a resize reads or
writes are blocked; operators that work element by element follow their neighbours, so that no layout changes inside a
network; everything else, islands included, is plain.

A tensor that all of its readers round to bfloat16 is stored so, if its maker can: half the memory, the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tvm import relax
from tvm.ir import IRModule, TupleType

from qcompile import graph
from qcompile.formats import added_as
from qcompile.ops import (
    AvgPool2d,
    Binary,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Lookup,
    Mean,
    Requantize,
    ResizeLinear,
    Spec,
    spec_of,
)
from qcompile.passes.base import dtype_of, op_name, shape_of
from qcompile.targets.storage import BLOCK, Storage

FEW_CHANNELS = 4  # images with at most this many channels keep them side by side: one window row is one run of memory

_IMAGE_SPECS = (Conv2d, ConvTranspose2d, AvgPool2d, ResizeLinear, ChannelShuffle)
_IMAGE_OPERATORS = ("nn.max_pool2d", "nn.max_pool1d", "image.resize2d")
_WEIGHTED_SPECS = (Conv2d, ConvTranspose2d, Dense)
MAXIMUM = ("nn.max_pool2d", "nn.max_pool1d")
_ROUNDING_OPERATORS = (*MAXIMUM, "dequantize")
_FOLLOWING_SPECS = (Binary, Lookup, Requantize)
_FOLLOWING_OPERATORS = ("nn.relu", "clip", "quantize", "dequantize", "strided_slice", "nn.pad")


def called_spec(module: IRModule, value: relax.Expr) -> Spec | None:
    """The spec of the composite function that a binding calls."""
    if isinstance(value, relax.Call) and isinstance(value.op, relax.GlobalVar):
        function = module[value.op]
        return spec_of(function) if isinstance(function, relax.Function) else None
    return None


def assign_storage(module: IRModule) -> dict[relax.Var, Storage]:
    """Variable or parameter of ``main`` (tensors only) -> its storage."""
    main = graph.read(module)
    specs = {var: called_spec(module, value) for var, value in main.bindings}
    tensors = [v for v in (*main.params, *(var for var, _ in main.bindings)) if not isinstance(v.ty, TupleType)]
    blocked = _blocked(main, specs, set(tensors))
    borders, fills = _borders(main, specs)
    few = _few_channels(main, specs)
    rounded = narrow_tensors(main, specs)
    storages = {}
    for var in tensors:
        shape, dtype = shape_of(var), dtype_of(var)
        dtype = rounded.get(var, dtype)
        if var not in blocked:
            storages[var] = Storage(shape, dtype)
            continue
        block = shape[1] if var in few and shape[1] <= FEW_CHANNELS else BLOCK
        storages[var] = Storage(shape, dtype, block, borders.get(var, (0, 0, 0, 0)), fills.get(var, 0))
    return storages


def _is_image(var: relax.Expr) -> bool:
    return isinstance(var, relax.Var) and not isinstance(var.ty, TupleType) and len(shape_of(var)) in (3, 4)


def _blocked(main: graph.Graph, specs: dict[relax.Var, Spec | None], tensors: set[relax.Var]) -> set[relax.Var]:
    blocked: set[relax.Var] = set()
    for var, value in main.bindings:
        spec = specs[var]
        if isinstance(spec, _IMAGE_SPECS) or op_name(value) in _IMAGE_OPERATORS:
            blocked.update(v for v in (var, *value.args) if _is_image(v))
        elif isinstance(spec, Mean) and _spatial(spec, value.args[0]) and _is_image(value.args[0]):
            blocked.update(v for v in (var, value.args[0]) if _is_image(v))
    blocked -= set(main.params)  # as the caller has them
    definitions = main.definitions()
    changed = True
    while changed:
        changed = False
        for var, value in main.bindings:
            group = _follows(var, value, specs[var], definitions)
            if any(v in blocked for v in group) and not all(v in blocked or v in main.params for v in group):
                blocked.update(v for v in group if v not in main.params)
                changed = True
    return blocked & tensors


def _spatial(spec: Mean, x: relax.Expr) -> bool:
    return spec.axes == tuple(range(2, len(shape_of(x))))


def _follows(
    var: relax.Var, value: relax.Expr, spec: Spec | None, definitions: dict[relax.Var, relax.Expr]
) -> list[relax.Var]:
    """The images of one binding that should lie alike, if any of them is blocked; empty where it does not matter."""
    if not _is_image(var):
        return []
    if isinstance(value, relax.TupleGetItem):
        value = definitions.get(value.tuple_value)
        return [v for v in (var, value.args[0]) if _is_image(v)] if op_name(value) == "split" else []
    if not isinstance(value, relax.Call):
        return []
    name = op_name(value)
    if isinstance(spec, Concat):
        operands = list(value.args)
    elif name == "concat":
        operands = list(value.args[0].fields) if isinstance(value.args[0], relax.Tuple) else []
    elif isinstance(spec, _FOLLOWING_SPECS) or name in _FOLLOWING_OPERATORS:
        operands = list(value.args)
    else:
        return []
    return [v for v in (var, *operands) if _is_image(v) and len(shape_of(v)) == len(shape_of(var))]


def _borders(
    main: graph.Graph, specs: dict[relax.Var, Spec | None]
) -> tuple[dict[relax.Var, tuple[int, int, int, int]], dict[relax.Var, float]]:
    """The largest border that the convolutions reading a tensor want around it, and the value of padding there."""
    borders: dict[relax.Var, tuple[int, int, int, int]] = {}
    fills: dict[relax.Var, float] = {}
    for var, value in main.bindings:
        spec = specs[var]
        if isinstance(spec, Conv2d) and isinstance(value.args[0], relax.Var):
            x = value.args[0]
            need = needed_border(spec, shape_of(x), shape_of(value.args[1]), shape_of(var))
            old = borders.get(x, (0, 0, 0, 0))
            borders[x] = tuple(max(a, b) for a, b in zip(old, need, strict=True))  # type: ignore[assignment]
            if any(borders[x]):
                fills[x] = spec.x.zero_point if spec.x else 0
    return borders, fills


def needed_border(
    spec: Conv2d, x: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Rows and columns that the windows reach outside of ``x``: top, left, bottom, right.

    Shapes: x and out (N, C, [H,] W), weight (O, I, [KH,] KW).
    """
    top, left, _, _ = spec.padding
    height, width = (x[2], x[3]) if len(x) == 4 else (1, x[2])
    kh, kw = (weight[2], weight[3]) if len(weight) == 4 else (1, weight[2])
    out_height, out_width = (out[2], out[3]) if len(out) == 4 else (1, out[2])
    bottom = (out_height - 1) * spec.strides[0] + (kh - 1) * spec.dilation[0] - top - (height - 1)
    right = (out_width - 1) * spec.strides[1] + (kw - 1) * spec.dilation[1] - left - (width - 1)
    return top, left, max(0, bottom), max(0, right)


def narrow_tensors(
    main: graph.Graph,
    specs: Mapping[relax.Var, Spec | None],
    dtypes: Collection[str] = ("bfloat16",),
    operators: Collection[str] = _ROUNDING_OPERATORS,
) -> dict[relax.Var, str]:
    """Tensors that everyone reads rounded to one type, and that type: so they may be stored.

    Their makers must be able to write it: layers with weights, and those of ``operators``. The largest of rounded
    numbers is the rounded largest, so pooling by maximum may work on those.
    """
    users, outputs = main.users(), {o for o in main.outputs if isinstance(o, relax.Var)}
    definitions = main.definitions()
    found: dict[relax.Var, str] = {}

    def read_as(user: relax.Var, var: relax.Var) -> set[str]:
        spec = specs[user]
        if isinstance(spec, _WEIGHTED_SPECS):
            first, *rest = definitions[user].args
            own = {spec.activations} if first.same_as(var) else set()
            return own | ({added_as(spec.activations)} if any(arg.same_as(var) for arg in rest) else set())
        return {found.get(user, "float32")} if op_name(definitions[user]) in MAXIMUM else {"float32"}

    for var, value in reversed(main.bindings):
        makes = isinstance(specs[var], _WEIGHTED_SPECS) or op_name(value) in operators
        if not makes or isinstance(var.ty, TupleType) or var in outputs or not users[var]:
            continue
        if dtype_of(var) != "float32":
            continue
        types = {dtype for user in users[var] for dtype in read_as(user, var)}
        if len(types) == 1 and types <= set(dtypes):
            found[var] = types.pop()
    return found


def _few_channels(main: graph.Graph, specs: dict[relax.Var, Spec | None]) -> set[relax.Var]:
    """Tensors that only ordinary convolutions read: for them, pixels of 1 to 4 channels may lie side by side."""
    users = main.users()
    outputs = {o for o in main.outputs if isinstance(o, relax.Var)}
    return {
        var
        for var, value in main.bindings
        if (op_name(value) == "quantize" or isinstance(specs[var], Requantize))
        and var not in outputs
        and users[var]
        and all(isinstance(s := specs[u], Conv2d) and s.groups == 1 for u in users[var])
    }
