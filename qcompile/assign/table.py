"""``SensitivityTable``: what each group of layers costs in each format, in accuracy, time and size; one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qcompile.assign.table_checks import check
from qcompile.plan import QuantPlan
from qcompile.versioned import FileKind

FLOAT = "fp32"  # the format that every group has
OUTSIDE = ""  # stands for whatever is in no group, which is always float32: model inputs and outputs, other operators
_PLAIN = (
    *("model", "model_sha256", "target", "threads", "device", "metric", "baseline", "samples"),
    *("rest_seconds", "rest_bytes", "cast_bandwidth", "cast_overhead", "passive", "notes", "seen"),
)
_KIND = FileKind(
    version=1,
    title="the table's format",
    again="analyze again",
    otherwise="not a table of sensitivities",
    remedy="give a table written by 'qcompile analyze'",
    format="qcompile.sensitivities",
)


@dataclass(frozen=True, slots=True)
class Format:
    """A precision that a layer may have.

    name: as in ``LayerPlan.format``. activations: dtype in which layers of this format read and write tensors
    ("float32", "uint8", "bfloat16", ...): two layers of equal dtype need no cast between them. element_bytes: of it.
    """

    name: str
    activations: str
    element_bytes: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One group in one format.

    alone: loss if only this group has the format and all else is fp32. Losses are in units of ``metric`` (nats for
    "kl"), as an increase over fp32: 0 for no change, larger is worse; a metric for which more is better counts by its
    decrease. They are summed over groups, so it must be a metric that adds up (relative squared error, not decibels).
    seconds: of one call of all kernels of the group, casts left out. bytes: of its weights, biases and tables.
    upto: loss if this group and every earlier one has the format; None where unknown.
    measured: whether ``seconds`` was measured on the target, not predicted.
    scores: secondary scores by name ("hawq", "sqnr", ...), in units of their own.
    """

    alone: float
    seconds: float
    bytes: int
    upto: float | None = None
    measured: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that take one format together.

    layers: names as in ``QuantPlan.layers``. why: what ties them, "" for a single layer.
    entries: by format name; "fp32" is always there. missing: other formats, and why the group cannot have them.
    """

    name: str
    layers: tuple[str, ...]
    entries: Mapping[str, Entry]
    why: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cast:
    """A tensor that passes from one group to others, which may read it in another dtype than its producer's format has.

    It is cast once for each such dtype; but not if all want one that is wider (float32 instead of codes), for then the
    producer writes that in the first place.
    elements: how many numbers it has. producer, consumers: group names, ``OUTSIDE`` for what is in no group.
    """

    tensor: str
    elements: int
    producer: str
    consumers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Where losses do not add up: the loss of two groups in these formats together, less the sum of both alone."""

    groups: tuple[str, str]
    formats: tuple[str, str]
    extra: float


@dataclass(frozen=True, slots=True)
class Check:
    """A whole configuration that was measured: what the sum of its groups' losses predicted, beside what it was.

    name: what it is, for readers ("int8", "assigned"). formats: by group. measured: loss, in units of the metric.
    """

    name: str
    formats: Mapping[str, str]
    predicted: float
    measured: float


@dataclass(frozen=True, slots=True)
class Uniform:
    """The whole model with every group in one format that can have it; None for what nobody looked at.

    loss: as in ``Entry``. seconds: of one call, measured. bytes: of all constants.
    """

    loss: float | None = None
    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SensitivityTable:
    """Everything that assignment needs: no model, no statistics, no data.

    model, model_sha256: the ONNX file's name and hash. target, threads: where the seconds are from; device: CPU model.
    metric: name of the loss. baseline: the metric of fp32 on the data, 0.0 for one that compares with fp32 ("kl").
    samples: how many runs of the model the losses are from, each of as many samples as it takes at a time.
    formats: in the order of columns, "fp32" among them. groups: in order of execution; a layer is in one at most.
    Layers in none stay as they are in every plan; they and all they hold cost ``rest_seconds`` and ``rest_bytes``.
    casts: tensors between groups; cast_bandwidth in bytes a second, read and written; cast_overhead in seconds a cast.
    pairs: corrections of the sum of losses. checks: configurations that were measured, in that order.
    uniform: by format name. notes: remarks for the reader.
    seen: digests of the samples that losses were measured on; () if it is not known which.
    plans: by format name, the plan of the model with all in that format that can be; "fp32" needs none.
    reads: layer -> the tensors (and constants, "<layer>.weight") whose ``TensorPlan`` it needs if its format has codes.
    residuals: layer -> the tensors that it needs besides if its result is stored as codes too.
    passive: layers that are float32 wherever nothing wants their results as codes. See ``assign.flow`` for these three.
    sources: layer -> the layers in groups and the model inputs that its operands come from, through whatever operators
    in no group lie between; ``OUTSIDE`` -> those of the model's outputs. For drawing the model; assignment needs casts.
    """

    model: str
    model_sha256: str
    target: str
    metric: str
    samples: int
    formats: tuple[Format, ...]
    groups: tuple[Group, ...]
    casts: tuple[Cast, ...] = ()
    pairs: tuple[Pair, ...] = ()
    checks: tuple[Check, ...] = ()
    threads: int = 1
    device: str = ""
    baseline: float = 0.0
    rest_seconds: float = 0.0
    rest_bytes: int = 0
    cast_bandwidth: float = 75e9
    cast_overhead: float = 0.0
    uniform: Mapping[str, Uniform] = field(default_factory=dict)
    plans: Mapping[str, QuantPlan] = field(default_factory=dict)
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    residuals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    passive: tuple[str, ...] = ()
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("uniform", "plans", "reads", "residuals", "sources"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        check(self)

    @property
    def sample_count(self) -> int:
        """Samples that losses are from."""
        return len(self.seen) or self.samples

    def cast_seconds(self, elements: int, source: str, result: str) -> float:
        """Seconds of a kernel that turns a tensor of one format into another's; 0 if their activations are alike."""
        old, new = self.format(source), self.format(result)
        if old.activations == new.activations:
            return 0.0
        return self.cast_overhead + elements * (old.element_bytes + new.element_bytes) / self.cast_bandwidth

    def format(self, name: str) -> Format:
        return next(f for f in self.formats if f.name == name)

    def to_json(self) -> str:
        """One line a group, cast and pair; the embedded plans as they would be saved."""
        head = {**_KIND.head, **{name: getattr(self, name) for name in _PLAIN}}
        parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        for key in ("formats", "groups", "casts", "pairs", "checks"):
            rows = ",\n".join(f"  {json.dumps(asdict(row))}" for row in getattr(self, key))
            parts.append(f"{json.dumps(key)}: [\n{rows}\n ]")
        parts.append(f'"uniform": {json.dumps({name: asdict(row) for name, row in self.uniform.items()})}')
        for key in ("reads", "residuals", "sources"):
            rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(names)}" for k, names in getattr(self, key).items())
            parts.append(f"{json.dumps(key)}: {{\n{rows}\n }}")
        plans = ",\n".join(f"{json.dumps(name)}: {plan.to_json().rstrip()}" for name, plan in self.plans.items())
        parts.append(f'"plans": {{\n{plans}\n }}')
        return "{\n " + ",\n ".join(parts) + "\n}\n"

    @staticmethod
    def from_json(text: str, where: str = "table") -> SensitivityTable:
        """Raises ``QCompileError`` for what is no such table, is of a newer version, or contradicts itself."""
        return _KIND.decode(text, where, partial(_decode, where))

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.to_json())

    @staticmethod
    def load(path: str | Path) -> SensitivityTable:
        return _KIND.read(path, partial(_decode, str(path)))


def _decode(where: str, data: dict[str, Any]) -> SensitivityTable:
    rows: dict[str, Any] = {
        "formats": tuple(Format(**row) for row in data.pop("formats")),
        "groups": tuple(_group(row) for row in data.pop("groups")),
        "casts": tuple(Cast(**{**row, "consumers": tuple(row["consumers"])}) for row in data.pop("casts")),
        "pairs": tuple(Pair(tuple(p["groups"]), tuple(p["formats"]), p["extra"]) for p in data.pop("pairs")),
        "checks": tuple(Check(**row) for row in data.pop("checks", ())),
        **{key: tuple(data.pop(key, ())) for key in ("passive", "notes", "seen")},
        "uniform": {name: Uniform(**row) for name, row in data.pop("uniform").items()},
        "reads": {layer: tuple(names) for layer, names in data.pop("reads").items()},
        "residuals": {layer: tuple(names) for layer, names in data.pop("residuals").items()},
        "sources": {layer: tuple(names) for layer, names in data.pop("sources", {}).items()},
        "plans": {name: QuantPlan.from_json(json.dumps(plan), where) for name, plan in data.pop("plans").items()},
    }
    return SensitivityTable(**rows, **data)


def _group(row: dict[str, Any]) -> Group:
    entries = {name: Entry(**entry) for name, entry in row["entries"].items()}
    return Group(**{**row, "layers": tuple(row["layers"]), "entries": entries})
