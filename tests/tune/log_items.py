"""Trials of one task, and logs that hold them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from qcompile.tune import database, log_file
from qcompile.tune.log import TuningLog
from qcompile.tune.record import Record, Search, canonical

VNNI, AVX2 = "x86-64-v4 vpdpbusd.512 r32", "x86-64-v3 vpmaddwd.256 r16"
CONV, DENSE = (canonical({"operator": name, "weight": [64, 64]}) for name in ("conv2d", "dense"))
TASK = (CONV, 1, VNNI, 1)


def record(us: float | None = 10.0, knobs: int = 1, **changes) -> Record:
    """One trial of ``TASK``; us None for a failed one."""
    result = Record(
        *TASK,
        knobs=canonical({"columns": knobs}),
        costs=() if us is None else (us * 1e-6, us * 2e-6),
        error="wrong result" if us is None else "",
        device="EPYC",
        cores=2,
        created="2026-01-31T12:00:00Z",
        tools=(("tvm", "0.27.0"),),
        footprint=1 << 20,
    )
    return dataclasses.replace(result, **changes)


def fill(path: Path, *items: Record | Search) -> Path:
    with TuningLog.open(path) as opened:
        opened.update(items)
    return path


def contents(path: Path) -> list[Record | Search]:
    with TuningLog.open(path, read_only=True) as opened:
        return list(opened.items())


def in_memory() -> TuningLog:
    return TuningLog(Path("memory"), database.memory())


def exported(*items: Record | Search) -> str:
    return "".join(log_file.lines(items))
