"""``Record`` and ``Search``: what a tuning log holds. Both are single JSON objects outside the database.

A number in a record is a measurement on one machine with one version of the tools; nothing is averaged or rounded.
Seconds and executed instructions are two units: what is measured in one says nothing about what is in the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

_CREATED = "%Y-%m-%dT%H:%M:%SZ"
SECONDS, INSTRUCTIONS = "seconds", "instructions"
UNITS = (SECONDS, INSTRUCTIONS)  # what counts more comes first
_INTEGER = range(-(2**63), 2**63)  # what SQLite holds


def now() -> str:
    """This moment as ``created`` has it: UTC, ISO 8601, whole seconds. Texts of two moments sort as the moments."""
    return datetime.now(UTC).strftime(_CREATED)


@dataclass(frozen=True, slots=True)
class Task:
    """What is searched for: the knobs of least cost of one layer on one kind of machine.

    workload: ``Workload.key``: canonical JSON of the layer without its numbers and without its batch.
    instructions: target features that matter to the code ("x86-64-v4 vpdpbusd.512 r32"). A record is never used for
    others. template: version of the schedule template that gives the knobs their meaning.
    unit: of the cost, one of ``UNITS``.
    """

    workload: str
    batch: int
    instructions: str
    template: int
    unit: str = SECONDS


@dataclass(frozen=True, slots=True)
class Record:
    """One trial: knobs, and what the kernel cost with them, or why it has no cost.

    workload, batch, instructions, template, unit: as in ``Task``.
    knobs: canonical JSON object. costs: every measurement of one call, in order; () if the trial failed.
    error: why it failed, "" if it did not. device: CPU model. cores: how many the machine has.
    created: ``now()``. tools: names and versions, sorted. footprint: bytes of weights that were rotated through while
    timing, which tells the state of the caches; 0 where that cannot matter.

    Raises ValueError for a record that could not be stored and read back as it is.
    """

    workload: str
    batch: int
    instructions: str
    template: int
    knobs: str
    costs: tuple[float, ...]
    error: str
    device: str
    cores: int
    created: str
    tools: tuple[tuple[str, str], ...]
    footprint: int
    unit: str = SECONDS

    def __post_init__(self) -> None:
        _check_task(self)
        _check_canonical("knobs", self.knobs)
        _check_created(self.created)
        if bool(self.costs) == bool(self.error):
            raise ValueError("a record has either costs or an error")
        if not all(type(c) is float and 0 < c < math.inf for c in self.costs):
            raise ValueError(f"costs must be positive floats, not {self.costs}")
        if list(self.tools) != sorted(self.tools):
            raise ValueError("tools must be sorted")
        _check_storable(self)

    @property
    def task(self) -> Task:
        return Task(self.workload, self.batch, self.instructions, self.template, self.unit)

    @property
    def ok(self) -> bool:
        return not self.error

    @property
    def minimum(self) -> float:
        """In ``unit``; infinite for a failure."""
        return min(self.costs, default=math.inf)

    @property
    def median(self) -> float:
        """In ``unit``; infinite for a failure."""
        return statistics.median(self.costs) if self.costs else math.inf

    @property
    def spread(self) -> float:
        """How far the median is above the minimum, as a part of it: large where neighbours made noise."""
        return self.median / self.minimum - 1 if self.costs else 0.0

    @property
    def operator(self) -> str:
        return operator_of(self.workload)

    @property
    def id(self) -> str:
        """SHA-256 over all fields: equal records are one record."""
        return hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Search:
    """How far the search of one task has come; a finished one needs no trials next time.

    trials: measured so far. created: when this was so.
    """

    workload: str
    batch: int
    instructions: str
    template: int
    trials: int
    finished: bool
    created: str
    unit: str = SECONDS

    def __post_init__(self) -> None:
        _check_task(self)
        _check_created(self.created)
        _check_storable(self)

    @property
    def task(self) -> Task:
        return Task(self.workload, self.batch, self.instructions, self.template, self.unit)

    @property
    def operator(self) -> str:
        return operator_of(self.workload)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal texts. Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def operator_of(workload: str) -> str:
    return json.loads(workload)["operator"]


def to_dict(item: Record | Search) -> dict[str, Any]:
    """As JSON takes it; the JSON texts within are objects.

    Costs in seconds, the older unit, stand under that name, without a unit.
    """
    values = {f.name: getattr(item, f.name) for f in fields(item)}
    values["workload"] = json.loads(values["workload"])
    if isinstance(item, Record):
        values |= {"knobs": json.loads(item.knobs), "costs": list(item.costs), "tools": dict(item.tools)}
    if item.unit == SECONDS:
        del values["unit"]
        if isinstance(item, Record):
            values[SECONDS] = values.pop("costs")
    return values


def from_dict(kind: type[Record] | type[Search], values: Mapping[str, Any]) -> Record | Search:
    """The inverse of ``to_dict``. Raises ValueError, with the key, for anything else."""
    names = [f.name for f in fields(kind)]
    if "unit" not in values:
        names.remove("unit")
        names = [SECONDS if name == "costs" else name for name in names]
    if wrong := set(names) ^ set(values):
        raise ValueError(f"{'no' if wrong & set(names) else 'unknown'} {', '.join(map(repr, sorted(wrong)))}")
    restored = dict(values)
    try:
        restored["workload"] = canonical(values["workload"])
        if kind is Record:
            restored["knobs"] = canonical(values["knobs"])
            restored["costs"] = tuple(map(float, restored.pop("costs" if "unit" in values else SECONDS)))
            restored["tools"] = tuple(sorted(values["tools"].items()))
        return kind(**restored)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(str(error)) from None


def _check_task(item: Record | Search) -> None:
    _check_canonical("workload", item.workload)
    if not isinstance(json.loads(item.workload).get("operator"), str):
        raise ValueError("workload: no operator")
    if isinstance(item.batch, int) and item.batch < 1:
        raise ValueError(f"batch must be 1 or more, not {item.batch}")
    if item.unit not in UNITS:
        raise ValueError(f"unknown unit {item.unit!r}")


def _check_canonical(name: str, text: str) -> None:
    try:
        value = json.loads(text)
        if isinstance(value, dict) and canonical(value) == text:
            return
    except (ValueError, TypeError, RecursionError):
        pass
    raise ValueError(f"{name} must be a JSON object with sorted keys and no spaces, not {text!r}")


def _check_created(text: str) -> None:
    try:
        if datetime.strptime(text, _CREATED).strftime(_CREATED) == text:
            return
    except (ValueError, TypeError):
        pass
    raise ValueError(f"created must be as 2026-01-31T23:59:59Z, not {text!r}")


def _check_storable(item: Record | Search) -> None:
    kinds = {"int": int, "str": str, "bool": bool}
    for f in fields(item):
        value = getattr(item, f.name)
        if f.type in kinds and type(value) is not kinds[f.type]:
            raise ValueError(f"{f.name} must be {f.type}, not {value!r}")
        if type(value) is int and value not in _INTEGER:
            raise ValueError(f"{f.name} takes more than 64 bits: {value}")
        if isinstance(value, str):
            value.encode()  # UnicodeEncodeError is a ValueError
