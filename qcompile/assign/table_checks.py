"""What must hold in a table of sensitivities, which people may edit by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qcompile.errors import QCompileError, nearest

if TYPE_CHECKING:
    from qcompile.assign.table import Group, SensitivityTable


def check(table: SensitivityTable) -> None:
    """Raises ``QCompileError`` for a table that contradicts itself."""
    formats = [f.name for f in table.formats]
    names = [group.name for group in table.groups]
    _once("format", formats)
    _once("group", names)
    _once("layer", [layer for group in table.groups for layer in group.layers])
    if "fp32" not in formats:
        raise QCompileError("the table has no format 'fp32'", remedy="every group needs it to compare with")
    for group in table.groups:
        _check_group(group, formats)
    ends = {*names, ""}
    for cast in table.casts:
        _known("group", (cast.producer, *cast.consumers), ends, cast.tensor)
        _at_least_zero(cast.tensor, elements=cast.elements)
    by_name = {group.name: group for group in table.groups}
    for pair in table.pairs:
        _known("group", pair.groups, ends - {""}, "pairs")
        for name, chosen in zip(pair.groups, pair.formats, strict=True):
            _known("format", [chosen], by_name[name].entries, name)
        _finite(" and ".join(pair.groups), extra=pair.extra)
    for row in table.checks:
        _known("group", row.formats, by_name, f"check '{row.name}'")
        for name, chosen in row.formats.items():
            _known("format", [chosen], by_name[name].entries, name)
        _finite(f"check '{row.name}'", predicted=row.predicted, measured=row.measured)
    _at_least_zero("table", rest_seconds=table.rest_seconds, rest_bytes=table.rest_bytes)
    _at_least_zero("table", cast_overhead=table.cast_overhead)
    if not table.cast_bandwidth > 0:
        raise QCompileError(f"cast_bandwidth is {table.cast_bandwidth}", remedy="give bytes a second")
    _known("format", [*table.plans, *table.uniform], formats, "table")


def _check_group(group: Group, formats: list[str]) -> None:
    if "fp32" not in group.entries:
        raise QCompileError("no entry for 'fp32'", node=group.name, remedy="every group needs one")
    _known("format", [*group.entries, *group.missing], formats, group.name)
    for name, entry in group.entries.items():
        _finite(f"{group.name} in {name}", alone=entry.alone)
        _at_least_zero(f"{group.name} in {name}", seconds=entry.seconds, bytes=entry.bytes)


def _once(what: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise QCompileError(f"{what} given {count} times", node=name, remedy="give it once")


def _known(what: str, names: Iterable[str], valid: Iterable[str], where: str) -> None:
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise QCompileError(f"no {what} '{name}' in the table", node=where, remedy=nearest(name, valid))


def _finite(where: str, **values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise QCompileError(f"{name} is {value}", node=where, remedy="a finite number is needed")


def _at_least_zero(where: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise QCompileError(f"{name} is {value}", node=where, remedy="a finite number, at least 0, is needed")
