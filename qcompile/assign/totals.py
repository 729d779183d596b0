"""What a choice of formats costs in all: the sums that the integer program is about, computed plainly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from qcompile.assign.table import FLOAT, OUTSIDE, Cast, Group, Pair, SensitivityTable


@dataclass(frozen=True, slots=True)
class Totals:
    """loss: predicted, in units of the table's metric. seconds: of one call, ``cast_seconds`` of them for casts."""

    loss: float
    seconds: float
    bytes: int
    cast_seconds: float = 0.0


def totals(table: SensitivityTable, formats: Mapping[str, str]) -> Totals:
    """Of the whole model. formats: group name -> format name, for every group."""
    entries = [group.entries[formats[group.name]] for group in table.groups]
    casts = _cast_seconds(table, table.casts, formats)
    return Totals(
        sum(entry.alone for entry in entries) + _extra(table.pairs, formats),
        table.rest_seconds + sum(entry.seconds for entry in entries) + casts,
        table.rest_bytes + sum(entry.bytes for entry in entries),
        casts,
    )


class Parts:
    """The terms of the sums that involve one group: what changes if it takes another format and all else stays."""

    def __init__(self, table: SensitivityTable):
        self.table = table
        self._entries = {group.name: group.entries for group in table.groups}
        self._casts: dict[str, list[Cast]] = defaultdict(list)
        self._pairs: dict[str, list[Pair]] = defaultdict(list)
        for cast in table.casts:
            for name in {cast.producer, *cast.consumers}:
                self._casts[name].append(cast)
        for pair in table.pairs:
            for name in pair.groups:
                self._pairs[name].append(pair)

    def __call__(self, formats: Mapping[str, str], group: str, name: str) -> Totals:
        """With ``group`` in the format ``name``, all others as ``formats`` says."""
        entry = self._entries[group][name]
        changed = {**formats, group: name}
        casts = _cast_seconds(self.table, self._casts[group], changed)
        return Totals(entry.alone + _extra(self._pairs[group], changed), entry.seconds + casts, entry.bytes, casts)

    def neighbours(self, group: str) -> set[str]:
        """The groups whose parts depend on the format of ``group``, itself among them."""
        ends = {name for cast in self._casts[group] for name in (cast.producer, *cast.consumers)}
        return {group, *ends, *(name for pair in self._pairs[group] for name in pair.groups)} - {OUTSIDE}


def is_wider(table: SensitivityTable, source: str, result: str) -> bool:
    """Whether a kernel of format ``source`` can as well write what ``result`` reads, out of its accumulators."""
    return table.format(result).element_bytes > table.format(source).element_bytes


def uniform_formats(table: SensitivityTable, name: str) -> dict[str, str]:
    """Group -> the format ``name`` if the group can have it; else what the plan of ``name`` has instead, or fp32."""
    return {group.name: _instead(table, group, name) for group in table.groups}


def _instead(table: SensitivityTable, group: Group, name: str) -> str:
    if name in group.entries or name not in table.plans:
        return name if name in group.entries else FLOAT
    layers = table.plans[name].layers
    planned = {layers[layer].format for layer in group.layers if layer in layers}
    return next((one for one in planned if len(planned) == 1 and one in group.entries), FLOAT)


def _extra(pairs: Iterable[Pair], formats: Mapping[str, str]) -> float:
    return sum(p.extra for p in pairs if (formats[p.groups[0]], formats[p.groups[1]]) == p.formats)


def made_casts(
    table: SensitivityTable, casts: Iterable[Cast], formats: Mapping[str, str]
) -> Iterator[tuple[Cast, str, str, float]]:
    """The casts that these formats need: the tensor, the format it is made in, one that it is read in, seconds."""
    activations = {f.name: f.activations for f in table.formats}
    for cast in casts:
        made = FLOAT if cast.producer == OUTSIDE else formats[cast.producer]
        read = [FLOAT if name == OUTSIDE else formats[name] for name in cast.consumers]
        wanted = {activations[name]: name for name in read}
        for dtype, result in wanted.items():
            if dtype != activations[made] and (activations[made] in wanted or not is_wider(table, made, result)):
                yield cast, made, result, table.cast_seconds(cast.elements, made, result)


def _cast_seconds(table: SensitivityTable, casts: Iterable[Cast], formats: Mapping[str, str]) -> float:
    return sum((seconds for *_, seconds in made_casts(table, casts, formats)), 0.0)
