"""One kernel for a nest and the reductions that it reads: element by element, or some threads for each row.

::

    softmax: rows (i0, i1, i2), 64 threads each          sum over images that lie channels last: 32 rows side by side
      r0 = max of x over k, r1 = sum of exp(x - r0)        r0 = sum of x over k, 8 threads each
      each k: y = exp(x - r0) / r1                         y = r0 / 49

Each thread combines every T-th element, then they meet in a tree in shared memory: the order is that of the shapes
alone, so a sum of floats is the same bits wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from qcompile.targets.cuda.expressions import Scope, mentions, stored, value_type
from qcompile.targets.cuda.nest_reads import Packing, Reads, decoded
from qcompile.targets.cuda.nests import Buffer, Nest
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import NAME, Kernel, each_thread, lanes_of, signature

BLOCK, MOST_THREADS, WARP = 128, 1024, 32
_BUSY = 1 << 16  # threads that keep a GPU busy
_EACH = 8  # elements that a thread combines, at least, before threads meet
_COMBINED = {
    "sum": "{0} + {1}",
    "product": "{0} * {1}",
    "max": "larger<{2}>({0}, {1})",
    "min": "smaller<{2}>({0}, {1})",
    "and": "{0} && {1}",
    "or": "{0} || {1}",
}
_FLOAT = {"sum": "sum({0}, {1})", "product": "product({0}, {1})"}


@dataclass(frozen=True, slots=True)
class Step:
    """A launch: the kernel, the buffers that it reads, and the one that it makes."""

    kernel: Kernel
    reads: tuple[Buffer, ...]
    makes: Buffer


@dataclass(frozen=True, slots=True)
class Rows:
    """The reductions that a nest reads, in order, with the indices of each; rows: the axes that tell rows apart."""

    reductions: tuple[tuple[Nest, tuple[str, ...]], ...]
    rows: tuple[str, ...]


def combined(nest: Nest, a: str, b: str) -> str:
    type = value_type(nest.dtype)
    return {**_COMBINED, **(_FLOAT if type == "float" else {})}[nest.combine].format(a, b, type)


def index_names(out: Storage) -> list[str]:
    return [f"i{a}" if extent > 1 else "0" for a, extent in enumerate(out.shape)]


def in_memory_order(out: Storage) -> list[str]:
    """The indices of a tensor, the innermost last, without axes of extent 1."""
    names = index_names(out)
    return [names[a] for a in (*out.others, out.axis) if names[a] != "0"]


def find_rows(nest: Nest, reads: Reads, out: Storage) -> Rows | Buffer:
    """What a kernel of this nest has to reduce, or a reduction that needs a kernel of its own."""
    names = index_names(out)[: len(nest.axes)]
    found: dict[Buffer, tuple[str, ...]] = {}
    todo = [(nest, tuple(names))]
    while todo:
        current, indices = todo.pop()
        trial = replace(reads, results={}, wanted={}, used={}, innermost={}, packing=None)
        trial.value(current, indices, Scope(), [f"k{n}" for n in range(len(current.reduced))])
        for buffer, places in trial.wanted.items():
            place = found.get(buffer, places[0])
            if any(p != place for p in places) or any(i != "0" and i not in names for i in place):
                return buffer
            if buffer not in found:
                found[buffer] = place
                todo.append((reads.inlined[buffer], place))
    order = [b for b in reads.inlined if b in found]
    rows = set(names) - {"0"} if nest.reduced else {i for i in found[order[0]] if i != "0"} if found else set()
    for buffer in order:
        if set(found[buffer]) - {"0"} != rows:
            return buffer
    kept = tuple(name for name in in_memory_order(out) if name in rows)
    return Rows(tuple((reads.inlined[b], found[b]) for b in order), kept)


def each_kernel(nest: Nest, reads: Reads, out: Storage) -> Kernel:
    """Element by element, a thread for a word of the result."""
    lanes = lanes_of(out)
    axis, groups = out.axis, out.pitch // lanes
    reads.packing, scope = Packing(out, lanes, f"c{axis}"), Scope()
    value = reads.value(nest, index_names(out)[: len(nest.axes)], scope)
    others = [a for a in out.others if out.shape[a] > 1]
    extents = [*(out.shape[a] for a in others), groups]
    lines = decoded([*(f"i{a}" for a in others), "g"], extents, "i")
    names = [f"c{axis}" if a == axis else f"i{a}" if out.shape[a] > 1 else "0" for a in range(len(out.shape))]
    padded = out.pitch > out.channels
    last = f"if (c{axis} >= {out.channels}) return;" if padded else ""
    guard = f"if (c{axis} + j >= {out.channels}) continue;" if padded and out.channels % lanes else ""
    body = f"""{" ".join(lines)}
  const int c{axis} = g{f" * {lanes}" if lanes > 1 else ""};
  {last}
  {" ".join(reads.packing.lines)}
  Pack<{out.type}, {lanes}> result = {{}};
  QC_UNROLL
  for (int j = 0; j < {lanes}; ++j) {{
    {guard}
    const int i{axis} = c{axis} + j;{scope.block("    ")}
    result.v[j] = {stored(value, out)};
  }}
  *reinterpret_cast<Pack<{out.type}, {lanes}>*>(y + {out.at(names)}) = result;"""
    return each_thread([*reads.parameters, f"{out.type}* y"], out.rows * groups, body)


@dataclass(frozen=True, slots=True)
class _Loop:
    """A reduction as text. value: of one element, after ``lines``. result: the variable that all threads get.

    before: statements ahead of the loop.
    """

    nest: Nest
    before: str
    lines: str
    value: str
    start: str
    result: str

    @property
    def bytes(self) -> int:
        """Of a partial result."""
        return 8 if value_type(self.nest.dtype) in ("double", "long long") else 4

    def text(self, threads: int, stride: int, first: str, wait: str) -> str:
        """threads: of a row, ``stride`` apart, of which ``first`` is the first. wait: what they meet at."""
        type = value_type(self.nest.dtype)
        part, sums = f"p{self.result[1:]}", "parts[threadIdx.x]"
        loop = f"""{self.before}
  {type} {part} = {self.start};
  for (int k = lane; k < {self.nest.length}; k += {threads}) {{
    {self.lines}
    {part} = {combined(self.nest, part, self.value)};
  }}"""
        if threads == 1:
            return f"{loop}\n  const {type} {self.result} = {part};"
        met = combined(self.nest, sums, f"parts[threadIdx.x + half * {stride}]")
        return f"""{loop}
  {type} {self.result};
  {{
    {type}* const parts = reinterpret_cast<{type}*>(memory);
    {sums} = {part};
    for (int half = {threads // 2}; half; half /= 2) {{
      {wait};
      if (lane < half) {sums} = {met};
    }}
    {wait};
    {self.result} = parts[{first}];
    {wait};
  }}"""


def row_kernel(nest: Nest, found: Rows, reads: Reads, out: Storage, done: Callable[[str], str] | None = None) -> Kernel:
    """``nest`` and the reductions before it, some threads for each row. done: what is stored of a value."""
    names = index_names(out)
    extent = dict(zip(names, out.shape, strict=True))
    reductions = [*found.reductions, *([(nest, tuple(names[: len(nest.axes)]))] if nest.reduced else [])]
    outside = Scope()
    loops = [_loop(reduction, indices, reads, outside) for reduction, indices in reductions]
    near = _adjacent(reads)
    inside = [name for name in in_memory_order(out) if name not in found.rows and not nest.reduced]
    rows, elements = prod(extent[name] for name in found.rows), prod(extent[name] for name in inside)
    longest = max(elements, *(loop.nest.length for loop in loops))
    threads, side = _block(rows, longest, near) if all(loop.nest.any_order for loop in loops) else (1, BLOCK)
    stride, first = (1, f"local * {threads}") if near else (side, "local")
    lane, local = ("%", "/") if near else ("/", "%")
    by = threads if near else side
    scope = outside.loop(inside)
    value = reads.results[nest.buffer] if nest.reduced else reads.value(nest, names[: len(nest.axes)], scope)
    value = done(value) if done else stored(value, out)
    # Where all partial results are as wide, a warp has a piece of shared memory for itself.
    together = near and threads <= WARP and len({loop.bytes for loop in loops}) == 1
    wait = "warp_barrier()" if together else "barrier()"
    steps = "\n  ".join(loop.text(threads, stride, first, wait) for loop in loops)
    text = f"""QC_KERNEL({threads * side}) {NAME}({signature([*reads.parameters, f"{out.type}* y"])}) {{
  QC_SHARED(memory);
  const int lane = threadIdx.x {lane} {by}, local = threadIdx.x {local} {by};
  const int at = blockIdx.x * {side} + local, row = at < {rows} ? at : {rows - 1};
  {" ".join(decoded(found.rows, [extent[name] for name in found.rows], "row"))}
  {steps}
  if (at >= {rows}) return;
  {outside.flushed()}
  for (int e = lane; e < {elements}; e += {threads}) {{
    {" ".join(decoded(inside, [extent[name] for name in inside], "e"))}{scope.block("    ")}
    y[{out.at(names)}] = {value};
  }}
}}
"""
    shared = threads * side * max(loop.bytes for loop in loops) if threads > 1 else 0
    return Kernel(text, -(-rows // side), threads * side, shared, f"{side} rows x {threads} threads")


def _loop(nest: Nest, indices: Sequence[str], reads: Reads, outside: Scope) -> _Loop:
    """Leaves the reduction's result in ``reads``."""
    number = len(reads.results)
    over = [f"k{number}_{n}" if length > 1 else "0" for n, length in enumerate(nest.lengths)]
    scope = outside.loop(over)
    value = reads.value(nest, indices, scope, over)
    start = reads.value(replace(nest, value=nest.init), indices, Scope())
    reads.results[nest.buffer] = f"r{number}"
    order = [n for n in over if n != "0"]
    order.sort(key=lambda name: any(mentions(at, name) for at in reads.innermost.values()))  # those run fastest
    extents = [nest.lengths[over.index(name)] for name in order]
    lines = " ".join(decoded(order, extents, "k")) + scope.block("    ")
    return _Loop(nest, outside.flushed(), lines, value, start, f"r{number}")


def _adjacent(reads: Reads) -> bool:
    """Whether the largest operand's neighbouring elements belong to one row, rather than to neighbouring rows."""
    if not reads.innermost:
        return True
    largest = max(reads.innermost, key=lambda buffer: reads.storages[buffer].numel)
    return mentions(reads.innermost[largest], r"k\d+_\d+")


def _block(rows: int, length: int, adjacent: bool) -> tuple[int, int]:
    """Threads of a row, and rows of a block: powers of two."""
    wanted = min(-(-_BUSY // rows), -(-length // _EACH))  # as many as keep a GPU busy, if each has enough to do
    if adjacent:
        threads = min(max(_power(wanted), min(WARP, _power(length))), MOST_THREADS)
        return threads, max(BLOCK // threads, 1)
    side = min(_power(rows), WARP)
    return min(_power(wanted), MOST_THREADS // side), side


def _power(number: int) -> int:
    """The least power of two that is no less."""
    return 1 << max(number - 1, 0).bit_length()
