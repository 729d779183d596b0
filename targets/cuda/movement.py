"""What moves elements: other layouts and shapes, slices, concatenations, padding, shuffles, nearest resize."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import Kernel, axes, each_element, each_thread, indices, lanes_of

Index = list[str]


def take(
    x: Storage,
    out: Storage,
    source: Callable[[Index], Index],
    inside: str = "",
    fill: str = "0",
    more: Sequence[str] = (),
) -> Kernel:
    """``y[i] = x[source(i)]``, or ``fill`` where the condition ``inside`` does not hold: buffers x, y.

    more: declarations of parameters between the two.
    """
    lanes = lanes_of(out)
    index = axes(out)
    if _moves_words(x, out, source(index)[x.axis], inside):
        pack = f"Pack<{x.type}, {lanes}>"
        head = f"const {pack} xs = *reinterpret_cast<const {pack}*>(x + {x.at(source(index))});"
        return each_element([f"const {x.type}* x", *more], out, lanes, head, _cast("xs.v[j]", x, out))
    index[out.axis] = f"({index[out.axis]} + j)"
    value = f"x[{x.at(source(index))}]"
    tests = [f"{index[out.axis]} < {out.channels}"] * (out.pitch > out.channels)
    if inside:
        tests.append("(" + inside.replace(f"i{out.axis}", index[out.axis]) + ")")
    if tests:
        value = f"{' && '.join(tests)} ? {value} : {x.type}({fill})"
    return each_element([f"const {x.type}* x", *more], out, lanes, "", _cast(value, x, out))


def _cast(value: str, x: Storage, out: Storage) -> str:
    return value if x.dtype == out.dtype else out.stored(x.real(value))


def _moves_words(x: Storage, out: Storage, channel: str, inside: str) -> bool:
    """Whether neighbouring channels of the result are neighbours in x, and begin where a word does."""
    found = re.fullmatch(rf"i{out.axis}(?: \+ (\d+))?", channel)
    if found is None or x.axis != out.axis or inside:
        return False
    lanes, start = lanes_of(out), int(found[1] or 0)
    return lanes > 1 and x.pitch % lanes == start % lanes == 0 and start + out.pitch <= x.pitch


def relayout(x: Storage, out: Storage) -> Kernel:
    """The same elements in row-major order, in another storage, maybe of another shape or type of floats."""
    if x.shape == out.shape:
        return take(x, out, lambda index: index)

    def source(index: Index) -> Index:
        flat = "0"
        for extent, i in zip(out.shape, index, strict=True):
            flat = i if flat == "0" else f"({flat}) * {extent} + {i}"
        return [f"({flat}) / {prod(x.shape[a + 1 :])} % {x.shape[a]}" for a in range(len(x.shape))]

    return take(x, out, source)


def channel_shuffle(groups: int, x: Storage, out: Storage) -> Kernel:
    each = x.shape[1] // groups

    def source(index: Index) -> Index:
        return [f"{i} % {groups} * {each} + {i} / {groups}" if a == 1 else i for a, i in enumerate(index)]

    return take(x, out, source)


def choose(tables: Sequence[Sequence[int] | np.ndarray | None], x: Storage, out: Storage) -> tuple[Kernel, list[int]]:
    """``y[i, j, ...] = x[tables[0][i], tables[1][j], ...]``, None for an axis that stays: buffers x, table (int32), y.

    Returns the kernel and its table: those of the axes one after the other.
    """
    starts: dict[int, int] = {}
    table: list[int] = []
    for a, numbers in enumerate(tables):
        if numbers is not None:
            starts[a] = len(table)
            table += [int(n) for n in numbers]

    def source(index: Index) -> Index:
        return [f"table[{starts[a]} + {i}]" if a in starts else i for a, i in enumerate(index)]

    return take(x, out, source, more=["const int* table"]), table


def pad_constant(before: Sequence[int], value: str, x: Storage, out: Storage) -> Kernel:
    inside = " && ".join(
        f"i{a} >= {b} && i{a} < {b + extent}" for a, (b, extent) in enumerate(zip(before, x.shape, strict=True))
    )
    return take(x, out, lambda index: [f"({i} - {b})" for b, i in zip(before, index, strict=True)], inside, value)


def spread(strides: Sequence[int], fill: int, x: Storage, out: Storage) -> Kernel:
    """The pixels of (N, C, ...) apart by the strides, ``fill`` between them: buffers x, y."""
    steps = (1, 1, *strides)
    inside = " && ".join(f"i{a} % {s} == 0" for a, s in enumerate(steps) if s > 1)
    return take(
        x,
        out,
        lambda index: [f"({i}) / {s}" if s > 1 else i for s, i in zip(steps, index, strict=True)],
        inside,
        str(fill),
    )


def insert(axis: int, start: int, x: Storage, out: Storage, convert: Callable[[str], str] = str) -> Kernel:
    """Writes x into the part of y that begins at ``start`` of ``axis``: buffers x, y. Concat is inserts."""
    index = axes(x)
    shifted = [f"{i} + {start}" if a == axis else i for a, i in enumerate(index)]
    whole = axis != x.axis or (start % 4 == 0 and x.channels % 4 == 0)
    lanes = 4 if whole and x.axis == out.axis and x.pitch % 4 == out.pitch % 4 == 0 else 1
    parameters = [f"const {x.type}* x", f"{out.type}* y"]
    test = f"if (i{x.axis} >= {x.channels}) return;" if x.pitch > x.channels else ""
    if lanes == 1:
        body = f"{test}\n  y[{out.at(shifted)}] = {convert(f'x[{x.at(index)}]')};"
    else:
        source, result = f"Pack<{x.type}, 4>", f"Pack<{out.type}, 4>"
        body = f"""{test}
  const {source} xs = *reinterpret_cast<const {source}*>(x + {x.at(index)});
  {result} result;
  for (int j = 0; j < 4; ++j) result.v[j] = {convert("xs.v[j]")};
  *reinterpret_cast<{result}*>(y + {out.at(shifted)}) = result;"""
    return each_thread(parameters, x.numel // lanes, f"{indices(x, lanes)}\n  {body}")
