"""Made-up tables of sensitivities, for the tests of assignment."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from qcompile import graph
from qcompile.assign.flow import find_casts, find_passive, find_reads, find_residuals, find_sources
from qcompile.assign.structure import Structure
from qcompile.assign.table import Cast, Entry, Format, Group, Pair, SensitivityTable
from qcompile.assign.ties import find_ties
from qcompile.model import Model
from qcompile.plan import QuantPlan

FORMATS = (
    Format("fp32", "float32", 4),
    Format("int8", "uint8", 1),
    Format("bf16", "bfloat16", 2),
    Format("w4a8", "uint8", 1),
    Format("w8", "float32", 4),
    Format("w4", "float32", 4),
)
_BITS = {"fp32": 32, "int8": 8, "bf16": 16, "w4a8": 4, "w8": 8, "w4": 4}
_SPEED = {"fp32": 1, "int8": 4, "bf16": 2, "w4a8": 3.5, "w8": 1.2, "w4": 1.1}


def made_up(groups: int, formats: int = 3, seed: int = 0, pairs: int = 0, skip: float = 0.1) -> SensitivityTable:
    """Layers of random size in a row, some read again later; a share ``skip`` of entries is missing.

    Losses span four orders of magnitude; seconds are microseconds.
    """
    rng = np.random.default_rng(seed)
    rows = FORMATS[:formats]
    names = [f"layer{i}" for i in range(groups)]
    made = []
    for name in names:
        seconds, weights, hurt = rng.lognormal(0, 1) * 1e-5, int(rng.lognormal(8, 1)), 10 ** rng.uniform(-5, -1)
        entries, missing = {}, {}
        for row in rows:
            if row.name != "fp32" and rng.random() < skip:
                missing[row.name] = "no kernel"
                continue
            noise = 2.0 ** -_BITS[row.name] * 256 * rng.uniform(0.5, 2)
            loss = 0.0 if row.name == "fp32" else hurt * noise
            size = weights * _BITS[row.name] // 8
            score = {"hawq": loss * rng.uniform(0.2, 5)}
            entries[row.name] = Entry(loss, seconds / _SPEED[row.name] * rng.uniform(0.8, 1.2), size, scores=score)
        made.append(Group(name, (name,), entries, missing=missing))
    casts = [Cast("input", 1000, "", (names[0],))]
    for i, name in enumerate(names):
        later = [names[j] for j in (i + 1, i + 1 + int(rng.integers(1, 4))) if j < groups]
        consumers = dict.fromkeys(later[: 1 + int(rng.random() < 0.3)] or [""])
        casts.append(Cast(name, int(rng.integers(1000, 50_000)), name, tuple(consumers)))
    some = [_pair(made, rng) for _ in range(pairs)]
    return SensitivityTable(
        model="made-up.onnx",
        model_sha256="",
        target="x86-vnni",
        metric="kl",
        samples=64,
        formats=rows,
        groups=tuple(made),
        casts=tuple(casts),
        pairs=tuple(some),
        rest_seconds=1e-6,
        rest_bytes=100,
        cast_bandwidth=50e9,
        cast_overhead=1e-7,
    )


def _pair(groups: list[Group], rng: np.random.Generator) -> Pair:
    a, b = rng.choice(len(groups), 2, replace=False)
    chosen = [str(rng.choice([*groups[i].entries])) for i in (a, b)]
    sizes = [groups[i].entries[name].alone for i, name in zip((a, b), chosen, strict=True)]
    return Pair((groups[a].name, groups[b].name), (chosen[0], chosen[1]), float(rng.uniform(-0.5, 1) * sum(sizes)))


def all_choices(table: SensitivityTable) -> Iterator[dict[str, str]]:
    names = [group.name for group in table.groups]
    for formats in product(*(group.entries for group in table.groups)):
        yield dict(zip(names, formats, strict=True))


def of_model(model: Model, plan: QuantPlan) -> SensitivityTable:
    """A table of a model's own groups and int8 plan, with made-up losses and times."""
    structure, plans = Structure(graph.read(model.module)), {"int8": plan}
    ties = find_ties(structure, plans)
    groups = [
        Group(tie.name, tie.layers, {"fp32": Entry(0, 4e-6, 400), "int8": Entry(10.0**-i, 1e-6, 100)}, tie.why)
        for i, tie in enumerate(ties, 1)
    ]
    return SensitivityTable(
        model="tiny.onnx",
        model_sha256=model.source_sha256,
        target="x86-avx2",
        metric="kl",
        samples=4,
        formats=FORMATS[:2],
        groups=tuple(groups),
        casts=tuple(find_casts(structure, ties, plans)),
        plans=plans,
        reads=find_reads(structure, plans),
        residuals=find_residuals(structure, plans),
        passive=find_passive(structure),
        sources=find_sources(structure, ties),
    )
