"""Instructions of each kernel of a model, and how near its inner loop is to the rate of the core's dot products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.arm import mca
from benchmarks.arm.loops import hottest_loop, multiplies
from qcompile.manifest import Manifest
from qcompile.report import units
from qcompile.report.tables import table
from qcompile.runtime.counting import Executed
from qcompile.runtime.profile import work_of
from qcompile.targets.target import Target

NUMBERS = ("instructions", "share", "products", "MACs", "MACs each", "in loop", "cycles", "limit", "of limit")

# The model of a core for rows that name none, by what they need: first hit.
_CORES = (("i8mm", "neoverse-n2"), ("asimddp", "neoverse-n1"), ("asimd", "cortex-a72"))

_TO_FLOAT = frozenset({"scvtf"})  # of sums, before they are scaled


@dataclass(frozen=True, slots=True)
class LayerCount:
    """One kernel of a call. macs: 0 if it does none of a layer's. products: its instructions that do the MACs.

    in_loop, passes: instructions of its hottest innermost loop, and how often that is passed. cycles: of one pass, by
    LLVM's model of the core, None without dot products there, or without llvm-mca. whole: the reduction is unrolled: a
    pass also makes codes of its sums, so dot products are not all of its work.
    """

    layer: str
    kernel: str
    shape: str
    instructions: int
    products: int
    macs: int
    in_loop: int
    passes: int
    cycles: mca.Cycles | None
    whole: bool


def core_of(target: Target) -> str:
    """LLVM's name of the core that stands for a row."""
    return target.mcpu if target.mcpu != "generic" else next(core for word, core in _CORES if target.has(word))


def layer_counts(manifest: Manifest, traces: Sequence[Sequence[Executed]], cpu: str) -> list[LayerCount]:
    """traces: of each of the manifest's calls. cpu: LLVM's name of the core, "" to leave cycles out."""
    counts = []
    for call, trace in zip(manifest.calls, traces, strict=True):
        loop, (macs, _) = hottest_loop(trace), work_of(call, manifest.layers)
        layer = next((layer for layer in manifest.layers if layer.name == call.layer), None)
        work = multiplies(i.mnemonic for i in trace)
        modelled = bool(cpu) and loop is not None and not work.isdisjoint(loop.mnemonics)
        counts.append(
            LayerCount(
                layer=call.layer,
                kernel=layer.kernel if layer and macs else call.kernel,
                shape=f"{units.shape(layer.inputs[0])} -> {units.shape(layer.output)}" if layer and macs else "",
                instructions=sum(i.times for i in trace),
                products=sum(i.times for i in trace if i.mnemonic in work) if macs else 0,
                macs=macs,
                in_loop=loop.instructions if loop else 0,
                passes=loop.passes if loop else 0,
                cycles=mca.loop_cycles(loop.codes, cpu) if modelled else None,
                whole=modelled and not _TO_FLOAT.isdisjoint(loop.mnemonics),
            )
        )
    return counts


def layers_table(counts: Sequence[LayerCount], title: str) -> Table:
    """One row a kernel, in the order of the run, then all of them together; its cycles are of all passes.

    An asterisk stands for ``whole``.
    """
    total, names = sum(c.instructions for c in counts), [c.layer for c in counts]
    rows = []
    for c in counts:
        loop = f"{c.in_loop / c.instructions:.0%}" if c.in_loop else ""
        cycles = _ratio(c.cycles.cycles, c.cycles.limit, ".1f", "*" * c.whole) if c.cycles else [""] * 3
        work = _work(c.instructions, total, c.products, c.macs)
        rows.append([distinct(c.layer, names), c.kernel, c.shape, *work, loop, *cycles])
    modelled = [c for c in counts if c.cycles]
    cycles, limit = sum(c.passes * c.cycles.cycles for c in modelled), sum(c.passes * c.cycles.limit for c in modelled)
    work = _work(total, total, sum(c.products for c in counts), sum(c.macs for c in counts))
    in_loop = f"{sum(c.in_loop for c in counts) / total:.0%}"
    rows.append(["all", "", "", *work, in_loop, *(_ratio(cycles, limit, ",.0f") if modelled else [""] * 3)])
    return table(["layer", "kernel", "shape", *NUMBERS], rows, right=NUMBERS, title=title)


def _work(instructions: int, total: int, products: int, macs: int) -> list[str]:
    work = [f"{products:,}", units.count(macs), f"{macs / instructions:.2f}"] if macs else ["", "", ""]
    return [f"{instructions:,}", f"{instructions / total:.1%}", *work]


def _ratio(cycles: float, limit: float, digits: str, mark: str = "") -> list[str]:
    return [f"{cycles:{digits}}", f"{limit:{digits}}", f"{mark}{cycles / limit:.2f}"]


def distinct(name: str, names: Sequence[str]) -> str:
    """The shortest part of a name that no other has: converters glue the names of all nodes that they fused."""
    others = {part for other in names if other != name for part in other.split(";")}
    return min((part for part in name.split(";") if part not in others), key=len, default=name)
