"""Which tensors of a module lie channels last on a GPU: images, and what is computed of them element by element.

Everything else lies as ONNX has it, the last axis innermost: that is what matrix products, softmax and normalizations
of transformers run along.
"""

from __future__ import annotations

from tvm import relax
from tvm.ir import IRModule, TupleType

from qcompile import graph, ops
from qcompile.passes.assign_storage import called_spec
from qcompile.passes.base import op_name, shape_of

_IMAGE_SPECS = (ops.Conv2d, ops.ConvTranspose2d, ops.AvgPool2d, ops.ResizeLinear, ops.ChannelShuffle)
_IMAGE_OPERATORS = ("nn.max_pool2d", "nn.max_pool1d", "image.resize2d")
_FOLLOWING_SPECS = (ops.Binary, ops.Lookup, ops.Requantize, ops.Concat)
_FOLLOWING_OPERATORS = ("nn.relu", "clip", "strided_slice", "nn.pad", "concat", "split", "call_tir")


def images(module: IRModule) -> set[relax.Expr]:
    """Variables of three axes and more, whose second axis is that of channels."""
    main = graph.read(module)
    beside: dict[relax.Expr, set[relax.Expr]] = {}
    todo: list[relax.Expr] = []
    for var, value in main.bindings:
        spec = called_spec(module, value)
        if isinstance(spec, _IMAGE_SPECS) or op_name(value) in _IMAGE_OPERATORS:
            todo += [var, *graph.reads(value)[:1]]
        follows = isinstance(spec, _FOLLOWING_SPECS) or op_name(value) in _FOLLOWING_OPERATORS
        for read in graph.reads(value) if follows or isinstance(value, relax.TupleGetItem) else ():
            if _alike(var, read):
                beside.setdefault(var, set()).add(read)
                beside.setdefault(read, set()).add(var)
    found: set[relax.Expr] = set()
    while todo:
        tensor = todo.pop()
        if tensor not in found and _rank(tensor) != 2:
            found.add(tensor)
            todo += beside.get(tensor, ())
    return found


def _rank(tensor: relax.Expr) -> int:
    return len(shape_of(tensor)) if not isinstance(tensor.ty, TupleType) else 0


def _alike(a: relax.Expr, b: relax.Expr) -> bool:
    """Whether two tensors have as many axes; a tuple is like its parts."""
    return 0 in (_rank(a), _rank(b)) or _rank(a) == _rank(b)
