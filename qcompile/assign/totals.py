"""What a choice of formats costs in all: the sums that the integer program is about, computed plainly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.assign.table import FLOAT, OUTSIDE, SensitivityTable


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the whole model. loss: predicted, in units of the table's metric. cast_seconds: share of ``seconds``."""

    loss: float
    seconds: float
    bytes: int
    cast_seconds: float = 0.0


def totals(table: SensitivityTable, formats: Mapping[str, str]) -> Totals:
    """formats: group name -> format name, for every group."""
    entries = [group.entries[formats[group.name]] for group in table.groups]
    loss = sum(entry.alone for entry in entries)
    loss += sum(pair.extra for pair in table.pairs if tuple(formats[name] for name in pair.groups) == pair.formats)
    casts = cast_seconds(table, formats)
    seconds = table.rest_seconds + sum(entry.seconds for entry in entries) + casts
    return Totals(loss, seconds, table.rest_bytes + sum(entry.bytes for entry in entries), casts)


def cast_seconds(table: SensitivityTable, formats: Mapping[str, str]) -> float:
    """Of all casts between groups."""
    of = {**formats, OUTSIDE: FLOAT}
    activations = {f.name: f.activations for f in table.formats}
    seconds = 0.0
    for cast in table.casts:
        made = of[cast.producer]
        wanted = {activations[of[name]]: of[name] for name in cast.consumers}
        for dtype, result in wanted.items():
            if dtype != activations[made] and (activations[made] in wanted or not is_wider(table, made, result)):
                seconds += table.cast_seconds(cast.elements, made, result)
    return seconds


def is_wider(table: SensitivityTable, source: str, result: str) -> bool:
    """Whether a kernel of format ``source`` can as well write what ``result`` reads, out of its accumulators."""
    return table.format(result).element_bytes > table.format(source).element_bytes


def uniform_formats(table: SensitivityTable, name: str) -> dict[str, str]:
    """Group -> the format ``name`` if the group can have it, else fp32."""
    return {group.name: name if name in group.entries else FLOAT for group in table.groups}
