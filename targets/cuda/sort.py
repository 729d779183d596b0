"""Sorting and running sums along one axis, of plain tensors."""

from __future__ import annotations

from math import prod

from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import Kernel, each_thread


def sort(axis: int, descending: bool, positions: bool, x: Storage, out: Storage) -> Kernel:
    """The first elements in order, or their positions; of equal ones the lower position comes first. Buffers x, y.

    A thread for each element counts how many come before it: no thread waits for another, and lines are short where
    networks sort. NaN comes before nothing and after nothing, so lines that hold it are not in order.
    """
    length, inner, keep = x.shape[axis], prod(x.shape[axis + 1 :]), out.shape[axis]
    sooner = ">" if descending else "<"
    body = f"""const int k = i / {inner} % {length};
  const {x.type}* const line = x + i / {length * inner} * {length * inner} + i % {inner};
  const {x.type} own = line[k * {inner}];
  int rank = 0;
  for (int other = 0; other < {length}; ++other) {{
    const {x.type} v = line[other * {inner}];
    rank += v {sooner} own || (v == own && other < k);
  }}
  const int at = (i / {length * inner} * {keep} + rank) * {inner} + i % {inner};
  if (rank < {keep}) y[at] = {"k" if positions else "own"};"""
    return each_thread([f"const {x.type}* x", f"{out.type}* y"], x.numel, body)


def scan(products: bool, axis: int, exclusive: bool, x: Storage, out: Storage) -> Kernel:
    """``y[..., k, ...]`` is the sum (or product) of ``x[..., :k + 1, ...]``, without x[k] if ``exclusive``.

    Buffers x, y. A thread for each line, in order: the same bits as on a CPU.
    """
    length, inner = x.shape[axis], prod(x.shape[axis + 1 :])
    steps = [f"total = total {'*' if products else '+'} {out.type}(x[at]);", "y[at] = total;"]
    body = f"""{out.type} total = {1 if products else 0};
  for (int k = 0; k < {length}; ++k) {{
    const int at = (i / {inner} * {length} + k) * {inner} + i % {inner};
    {" ".join(reversed(steps) if exclusive else steps)}
  }}"""
    return each_thread([f"const {x.type}* x", f"{out.type}* y"], x.numel // max(length, 1), body)
