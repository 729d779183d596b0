"""Running sums and products along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.targets.kernels.builder import cast, load, loop, registers, store


def scan(kind: str, shape: Sequence[int], axis: int, dtype: str, out_dtype: str, exclusive: bool) -> tirx.PrimFunc:
    """``y[..., i, ...] = x[..., 0, ...] op ... op x[..., i, ...]`` along ``axis``; kind is "cumsum" or "cumprod".

    x (*shape) of ``dtype``, y (*shape) of ``out_dtype``. ``exclusive`` leaves x[i] itself out.
    """
    outer, length, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    neutral = tirx.const(0 if kind == "cumsum" else 1, out_dtype)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(kind)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
        args = (T.arg("x", T.buffer(shape, dtype)), T.arg("y", T.buffer(shape, out_dtype)))
        x, y = (T.decl_buffer((prod(shape),), t, data=a.data) for a, t in zip(args, (dtype, out_dtype), strict=True))
        so_far = registers(1, out_dtype)
        with loop(outer) as o, loop(inner) as i:
            store(so_far, 0, neutral, 1)
            with loop(length) as step:
                at = (o * length + step) * inner + i
                if exclusive:
                    store(y, at, so_far[0], 1)
                value = cast(out_dtype, load(x, at, 1), 1)
                store(so_far, 0, so_far[0] + value if kind == "cumsum" else so_far[0] * value, 1)
                if not exclusive:
                    store(y, at, so_far[0], 1)
    return builder.get().without_attr("global_symbol")
