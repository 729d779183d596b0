"""Whether a model gives distributions over classes, so that divergence is the loss to measure; found from its graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import relax

from qcompile import graph
from qcompile.analyze.data import Sample
from qcompile.analyze.metrics import Metric, labels_of, make_metric
from qcompile.errors import QCompileError
from qcompile.model import Model
from qcompile.passes.base import dtype_of, op_name, shape_of

_MOVES = ("reshape", "permute_dims", "squeeze", "flatten", "expand_dims")
_LINEAR = ("matmul", "nn.conv1d", "nn.conv2d")
LABELLED = ("top1", "perplexity")  # metrics that need labels
_BETWEEN = (*_MOVES, "add", "mean", "nn.avg_pool2d")


@dataclass(frozen=True, slots=True)
class Classes:
    """output: the name of the one that holds classes along its last axis. probabilities: or logits. why: in words."""

    output: str
    probabilities: bool
    why: str


def find_classes(model: Model) -> Classes | None:
    """The output that says something of classes: it comes from a softmax over its last axis; or from a layer with
    weights, and is a row for each sample, or for each token a number for each row of the table that tokens index.

    An output of the shape of an input is a reconstruction, not a choice between classes.
    """
    main = graph.read(model.module)
    definitions = main.definitions()
    given = [shape_of(param) for param in main.params]
    for spec, out in zip(model.outputs, main.outputs, strict=True):
        if not isinstance(out, relax.Var) or spec.dtype != "float32" or len(spec.shape) < 2 or spec.shape[-1] < 2:
            continue
        last = _behind(out, definitions, _MOVES)
        if op_name(last) == "nn.softmax" and int(last.attrs.axis) in (-1, len(shape_of(last)) - 1):
            return Classes(spec.name, True, "its last operator is a softmax")
        if op_name(_behind(out, definitions, _BETWEEN)) not in _LINEAR:
            continue
        tokens = [shape_of(p) for p in main.params if dtype_of(p) in ("int32", "int64")]
        if len(spec.shape) == 3 and spec.shape[:2] in tokens and spec.shape[2] in _table_rows(main):
            return Classes(spec.name, False, "it has a number for each token that may follow")
        if len(spec.shape) == 2 and spec.shape not in given:
            return Classes(spec.name, False, "it has a number for each class")
    return None


def choose_metric(model: Model, wanted: str | Callable[..., Any] | None = None) -> Metric:
    """A metric as ``make_metric`` takes it, on what the model says of classes; None: "kl" if it does, else "mse"."""
    classes = find_classes(model)
    if wanted is None:
        wanted = "mse" if classes is None else "kl"
    elif wanted in ("kl", *LABELLED):
        classes = classes_for(model, str(wanted))
    return make_metric(wanted, *((classes.output, classes.probabilities) if classes is not None else ("", False)))


def classes_for(model: Model, metric: str) -> Classes:
    """The classes that are found, or assumed, because somebody asks for a metric of classes.

    Raises QCompileError if no output can hold any.
    """
    found = find_classes(model)
    if found is not None:
        return found
    for spec in model.outputs:
        if spec.dtype == "float32" and spec.shape and spec.shape[-1] > 1:
            return Classes(spec.name, False, f"asked for by {metric}")
    raise QCompileError("no output holds classes", node=metric, remedy="choose the metric mse, sqnr or cosine")


def check_labels(model: Model, metric: str, sample: Sample) -> None:
    """Raises QCompileError for a metric of classes whose labels a sample lacks."""
    output = classes_for(model, metric).output
    *rows, classes = next(spec.shape for spec in model.outputs if spec.name == output)
    if sample.rows is not None:
        rows[0] = sample.rows
    labels_of(sample.labels, math.prod(rows), classes)


def _behind(var: relax.Expr, definitions: dict[relax.Var, relax.Expr], through: tuple[str, ...]) -> relax.Expr:
    """The operator that a tensor comes from, through those that only move or average its elements."""
    value = definitions.get(var)
    while op_name(value) in through and isinstance(value.args[0], relax.Var):
        value = definitions.get(value.args[0])
    return value


def _table_rows(main: graph.Graph) -> set[int]:
    return {shape_of(value.args[0])[0] for _, value in main.bindings if op_name(value) == "take"}
