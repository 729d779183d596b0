"""Sums of products in tiles: matrix products of two activations, and convolutions that no layer's kernel takes.

::

    y[b, m, n] = sum over k of f(b, m, k) * g(b, k, n)

f and g are whatever TVM has there, operands or what is computed of them. A block makes a tile of m x n: tiles of f and
g go through shared memory, k is run through in order, and each product is added by one FMA, so that the sum is the
same bits wherever it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tvm import tirx

from qcompile.targets.cuda.expressions import Scope, mentions, stored
from qcompile.targets.cuda.nest_reads import Reads, decoded
from qcompile.targets.cuda.nest_rows import Rows, in_memory_order, index_names
from qcompile.targets.cuda.nests import Nest
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import NAME, Kernel, signature

_SIDE, _DEPTH = 16, 16  # threads along m and n; elements of k at a time
_FILLED = 128  # blocks that keep a GPU busy
_LEAST = 8  # results along m and n below which a tile is mostly empty


@dataclass(frozen=True, slots=True)
class _Factor:
    """f or g. axis: m or n. lines, value: of its element. near: whether neighbours along k are neighbours in memory."""

    axis: str
    lines: str
    value: str
    near: bool


def product_kernel(nest: Nest, rows: Rows, reads: Reads, out: Storage) -> Kernel | None:
    """``nest``: a sum of products, or what is made element by element of one. None if it is neither, or small."""
    made = in_memory_order(out)
    if nest.reduced:
        total, indices = nest, tuple(index_names(out)[: len(nest.axes)])
    elif len(rows.reductions) == 1:
        total, indices = rows.reductions[0]
    else:
        return None
    if rows.reductions and nest.reduced or set(rows.rows) != set(made):
        return None
    if total.combine != "sum" or total.dtype != "float32" or not total.any_order:
        return None
    if not isinstance(total.value, tirx.Mul):
        return None
    extent = dict(zip(index_names(out), out.shape, strict=True))
    over = [f"k_{n}" if length > 1 else "0" for n, length in enumerate(total.lengths)]
    texts = []
    for part in (total.value.a, total.value.b):
        scope = Scope()
        texts.append((scope, reads.value(replace(total, value=part), indices, scope, over), dict(reads.innermost)))
        reads.innermost.clear()
    used = [{name for name in made if mentions(scope.block() + value, name)} for scope, value, _ in texts]
    own = [[n for n in made if n in used[a] and n not in used[1 - a] and extent[n] >= _LEAST] for a in (0, 1)]
    if not own[0] or not own[1]:
        return None
    column = 0 if own[0][-1] == max(own[0][-1], own[1][-1], key=made.index) else 1
    n, m = own[column][-1], max(own[1 - column], key=lambda name: extent[name])
    factors = []
    for axis, (scope, value, innermost) in zip((n, m) if column == 0 else (m, n), texts, strict=True):
        near = any(mentions(at, r"k_\d+") for at in innermost.values())
        factors.append(_Factor(axis, scope.block("        "), value, near))
    f, g = (factors[1], factors[0]) if column == 0 else factors
    return _tiled(nest, total, reads, out, f, g)


def _tiled(nest: Nest, total: Nest, reads: Reads, out: Storage, f: _Factor, g: _Factor) -> Kernel:
    names, length = index_names(out), total.length
    extent = dict(zip(names, out.shape, strict=True))
    rows, columns = extent[f.axis], extent[g.axis]
    batch = [name for name in in_memory_order(out) if name not in (f.axis, g.axis)]
    count = prod(extent[name] for name in batch)
    each = next((e for e in (4, 2, 1) if count * -(-rows // (_SIDE * e)) * -(-columns // (_SIDE * e)) >= _FILLED), 2)
    while each > 1 and max(rows, columns) <= _SIDE * each // 2:
        each //= 2
    side = _SIDE * each
    tiles_m, tiles_n = -(-rows // side), -(-columns // side)
    reads.results[total.buffer] = "total"
    scope = Scope()
    value = "total" if nest.reduced else reads.value(nest, names[: len(nest.axes)], scope)
    loads = "\n".join(_load(part, side, extent[part.axis], length, total) for part in (f, g))
    text = f"""QC_KERNEL({_SIDE * _SIDE}) {NAME}({signature([*reads.parameters, f"{out.type}* y"])}) {{
  QC_SHARED(memory);
  float(&tile_{f.axis})[{_DEPTH}][{side + 1}] = *reinterpret_cast<float(*)[{_DEPTH}][{side + 1}]>(memory);
  float(&tile_{g.axis})[{_DEPTH}][{side + 1}] = *(&tile_{f.axis} + 1);
  const int tile = blockIdx.x, across = threadIdx.x % {_SIDE}, down = threadIdx.x / {_SIDE};
  const int first_{g.axis} = tile % {tiles_n} * {side}, first_{f.axis} = tile / {tiles_n} % {tiles_m} * {side};
  {" ".join(decoded(batch, [extent[name] for name in batch], f"(tile / {tiles_m * tiles_n})"))}
  float sums[{each}][{each}] = {{}};
  for (int start = 0; start < {length}; start += {_DEPTH}) {{
{loads}
    barrier();
    QC_UNROLL
    for (int k = 0; k < {_DEPTH}; ++k) {{
      float f[{each}], g[{each}];
      QC_UNROLL
      for (int a = 0; a < {each}; ++a) {{
        f[a] = tile_{f.axis}[k][down + {_SIDE} * a];
        g[a] = tile_{g.axis}[k][across + {_SIDE} * a];
      }}
      QC_UNROLL
      for (int a = 0; a < {each}; ++a)
        QC_UNROLL
        for (int b = 0; b < {each}; ++b) sums[a][b] = fmaf(f[a], g[b], sums[a][b]);
    }}
    barrier();
  }}
  QC_UNROLL
  for (int a = 0; a < {each}; ++a)
    QC_UNROLL
    for (int b = 0; b < {each}; ++b) {{
      const int {f.axis} = first_{f.axis} + down + {_SIDE} * a, {g.axis} = first_{g.axis} + across + {_SIDE} * b;
      if ({f.axis} >= {rows} || {g.axis} >= {columns}) continue;
      const float total = sums[a][b];{scope.block("      ")}
      y[{out.at(names)}] = {stored(value, out)};
    }}
}}
"""
    shared = 2 * 4 * _DEPTH * (side + 1)
    return Kernel(text, count * tiles_m * tiles_n, _SIDE * _SIDE, shared, f"tiles {side} x {side} x {_DEPTH}")


def _load(part: _Factor, side: int, extent: int, length: int, total: Nest) -> str:
    """Statements that fill the part's tile; neighbouring threads read neighbouring elements."""
    across, down = f"e % {_DEPTH}", f"e / {_DEPTH}"
    if not part.near:
        across, down = f"e / {side}", f"e % {side}"
    inner = [(f"k_{n}", extent) for n, extent in enumerate(total.lengths) if extent > 1]
    decode = " ".join(decoded([name for name, _ in inner], [extent for _, extent in inner], "k"))
    return f"""    for (int e = threadIdx.x; e < {side * _DEPTH}; e += {_SIDE * _SIDE}) {{
      const int k = start + {across}, {part.axis} = first_{part.axis} + {down};
      float element = 0.0f;
      if (k < {length} && {part.axis} < {extent}) {{
        {decode}{part.lines}
        element = {part.value};
      }}
      tile_{part.axis}[{across}][{down}] = element;
    }}"""
