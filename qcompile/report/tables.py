"""Tables for the terminal; without a terminal they are plain, and never cut a name short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from qcompile.artifact import Artifact
from qcompile.formats import format_of
from qcompile.manifest import LayerInfo, Manifest, ScheduleInfo, TensorInfo
from qcompile.report import units

_SOURCES = ("tuned", "counted", "transferred", "default")  # of ``ScheduleInfo``


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = (), title: str = "") -> Table:
    """Rows under headers, less the columns that are empty in every row; those named in ``right`` are aligned so."""
    rows = list(rows)
    kept = [i for i in range(len(headers)) if any(row[i] for row in rows) or not rows]
    result = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for header in (headers[i] for i in kept):
        result.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*(row[i] for i in kept))
    return result


def layers_table(layers: Sequence[LayerInfo]) -> Table:
    """One row a layer: what it computes, how, and why if it stayed float."""
    return table(
        ["layer", "op", "format", "kernel", "schedule", "inputs", "output", "MACs", "scale", "zero", "why float"],
        [
            [
                layer.name,
                layer.op,
                layer.format,
                layer.kernel,
                layer.schedule,
                ", ".join(map(units.shape, layer.inputs)),
                units.shape(layer.output),
                units.count(layer.macs),
                "" if layer.scale is None else f"{layer.scale:.5g}",
                "" if layer.zero_point is None else str(layer.zero_point),
                layer.reason,
            ]
            for layer in layers
        ],
        right=["MACs", "scale", "zero"],
    )


def formats(layers: Sequence[LayerInfo]) -> str:
    """ "21 int8, 2 fp32" """
    counts = Counter(layer.format for layer in layers)
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def schedules(infos: Sequence[ScheduleInfo]) -> dict[str, int]:
    """Layers by where their schedules come from: {"tuned": 41, "transferred": 8, "default": 4}, without zeros."""
    counts = Counter(info.source for info in infos)
    return {source: counts[source] for source in _SOURCES if counts[source]}


def _schedule_words(infos: Sequence[ScheduleInfo]) -> str:
    """ "41 tuned, 4 default"; of a build for several architectures, of each."""
    architectures = list(dict.fromkeys(info.architecture for info in infos))
    words = []
    for arch in architectures:
        counts = schedules([info for info in infos if info.architecture == arch])
        text = ", ".join(f"{n} {source}" for source, n in counts.items())
        words.append(f"{arch}: {text}" if len(architectures) > 1 else text)
    return "; ".join(words)


def reasons(layers: Sequence[LayerInfo]) -> list[str]:
    """Why layers stayed float, most frequent reason first, each with the number and the first names of its layers."""
    by_reason: dict[str, list[str]] = {}
    for layer in layers:
        if layer.reason:
            by_reason.setdefault(layer.reason, []).append(layer.name)
    lines = []
    for reason, names in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        lines.append(f"{len(names)} x {reason} ({shown})")
    return lines


def tensor(info: TensorInfo) -> str:
    """ "x float32 1x3x224x224" and the meaning of its codes, if they are codes."""
    q = info.quantization
    codes = f", real = {q.scale:.6g} * (code - {q.zero_point})" if q else ""
    return f"{info.name} {info.dtype} {units.shape(info.shape)}{codes}"


def facts(artifact: Artifact) -> list[tuple[str, str]]:
    """What the head of a report says of an artifact, line by line."""
    m: Manifest = artifact.manifest
    macs = sum(layer.macs for layer in m.layers)
    integer = sum(layer.macs for layer in m.layers if format_of(layer.format).codes)
    smaller = f", {m.weights.bytes / m.model_bytes:.2f}x the ONNX file" if m.model_bytes else ""
    return [
        ("model", f"{m.model} ({units.size(m.model_bytes)})" if m.model_bytes else m.model),
        ("target", m.target if m.launches else f"{m.target}, {m.threads} thread{'s' * (m.threads > 1)}"),
        *(("input", tensor(t)) for t in m.inputs),
        *(("output", tensor(t)) for t in m.outputs),
        (
            "layers",
            f"{formats(m.layers)}; {integer / macs:.1%} of {units.count(macs)} MACs in integers"
            if macs
            else formats(m.layers),
        ),
        *(("float", line) for line in reasons(m.layers)),
        *([("schedules", _schedule_words(m.schedules))] if m.schedules else []),
        ("weights", f"{units.size(m.weights.bytes)}{smaller}"),
        ("code", units.size(m.library.bytes)),
        ("workspace", units.size(m.workspace_bytes)),
        *(("note", note) for note in m.notes),
    ]
