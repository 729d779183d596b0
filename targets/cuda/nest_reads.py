"""How the nests of one kernel read: operands of the kernel, results of its reductions, what is computed in place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qcompile.targets.cuda.expressions import Scope, Writer, loaded, mentions, value_type
from qcompile.targets.cuda.nests import Buffer, Nest, shape_of_buffer
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import WORD


@dataclass(slots=True)
class Reads:
    """storages: of operands. inlined: nests, by what they make, that are computed where they are read.

    results: of a reduction that the kernel has computed, its variable. wanted: of those that it has not, where they
    are read. used: operands so far, in the order of the kernel's parameters. innermost: of an operand, the index on its
    innermost axis, as it was last. packing: of kernels whose threads make words.
    """

    storages: Mapping[Buffer, Storage]
    inlined: Mapping[Buffer, Nest]
    results: dict[Buffer, str] = field(default_factory=dict)
    wanted: dict[Buffer, list[tuple[str, ...]]] = field(default_factory=dict)
    used: dict[Buffer, str] = field(default_factory=dict)
    innermost: dict[Buffer, str] = field(default_factory=dict)
    packing: Packing | None = None

    def value(self, nest: Nest, indices: Sequence[str], scope: Scope, over: Sequence[str] = ()) -> str:
        """The value of a nest at these indices; over: names of the reduced axes."""
        names: dict[Any, str] = {a: i for a, i in zip(nest.axes, indices, strict=True) if a is not None}
        names |= dict.fromkeys(nest.zeros, "0") | dict(zip(nest.reduced, over, strict=False))
        return Writer(self._load).write(nest.value, names, scope)

    @property
    def parameters(self) -> list[str]:
        return [f"const {self.storages[buffer].type}* {name}" for buffer, name in self.used.items()]

    def _load(self, buffer: Buffer, indices: list[str], scope: Scope) -> str:
        extents = shape_of_buffer(buffer)
        indices = [scope.name("int", i) if e > 1 else "0" for i, e in zip(indices, extents, strict=True)]
        nest = self.inlined.get(buffer)
        if nest is None:
            return self._element(buffer, indices or ["0"], scope)
        if nest.reduced:
            self.wanted.setdefault(buffer, []).append(tuple(indices))
            return self.results.get(buffer, "0")
        key = f"{nest.buffer.name} {id(nest)} {indices}"
        if key not in scope.known:  # what several expressions read is computed once
            scope.known[key] = scope.name(value_type(nest.dtype), self.value(nest, indices, scope))
        return scope.known[key]

    def _element(self, buffer: Buffer, indices: list[str], scope: Scope) -> str:
        storage, name = self.storages[buffer], self.used.setdefault(buffer, f"x{len(self.used)}")
        self.innermost[buffer] = scope.written_out(indices[storage.axis])
        word = self.packing.word(name, storage, indices) if self.packing else ""
        return loaded(word or f"{name}[{storage.at(indices)}]", storage)


@dataclass(slots=True)
class Packing:
    """Operands of which a thread's neighbouring elements are neighbours, too: they are read as one word.

    out: of the result, whose first lane has index ``first`` on its innermost axis. words: statements that read them.
    """

    out: Storage
    lanes: int
    first: str
    words: dict[str, str] = field(default_factory=dict)

    def word(self, name: str, x: Storage, indices: Sequence[str]) -> str:
        """The element of lane j, if there is such a word; "" if not."""
        lane = f"i{self.out.axis}"
        others = [i for a, i in enumerate(indices) if a != x.axis]
        found = re.fullmatch(rf"\(?{lane}(?: \+ (\d+))?\)?", indices[x.axis])
        if self.lanes == 1 or found is None or any(_moves(i, lane) for i in others):
            return ""
        start = int(found[1] or 0)
        end = start + -(-self.out.channels // self.lanes) * self.lanes  # of the last word
        if x.pitch % self.lanes or start % self.lanes or end > x.pitch or self.lanes * x.item_bytes > WORD:
            return ""
        pack = f"Pack<{x.type}, {self.lanes}>"
        at = x.at([f"{self.first} + {start}" if a == x.axis else i for a, i in enumerate(indices)])
        word = self.words.setdefault(f"*reinterpret_cast<const {pack}*>({name} + {at})", f"w{len(self.words)}")
        return f"{word}.v[j]"

    @property
    def lines(self) -> list[str]:
        return [f"const auto {word} = {value};" for value, word in self.words.items()]


def _moves(index: str, lane: str) -> bool:
    """Whether an index may differ from lane to lane: variables that are named in between may."""
    return mentions(index, lane) or mentions(index, r"t\d+")


def decoded(names: Sequence[str], extents: Sequence[int], number: str) -> list[str]:
    """Statements that declare the indices of which ``number`` is the flat one, the last runs fastest."""
    lines: list[str] = []
    inner = 1
    for name, extent in zip(reversed(names), reversed(extents), strict=True):
        rest = "" if len(lines) == len(names) - 1 else f" % {extent}"
        lines.append(f"const int {name} = {number}{f' / {inner}' if inner > 1 else ''}{rest};")
        inner *= extent
    return lines
