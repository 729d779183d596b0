"""The metric that must not drop: the user's own, or that of the task if the evaluation data have labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompile.analyze.data import Sample
from qcompile.analyze.detect import Classes
from qcompile.analyze.metrics import Arrays, Metric, load_function, make_metric
from qcompile.errors import QCompileError
from qcompile.model import TensorSpec

Arguments = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Guard:
    """A metric over a whole data set.

    metric: of one sample, whose ``measure`` gives a row of float64. value: of the rows (samples, n) of all samples.
    """

    metric: Metric
    value: Callable[[np.ndarray], float]

    @property
    def name(self) -> str:
        return self.metric.name

    def drop(self, rows: np.ndarray, base: np.ndarray) -> float:
        """How much worse ``rows`` are than those of fp32; below 0 if they are better."""
        if self.metric.relative:
            return self.value(rows)
        return -self.metric.better * (self.value(rows) - self.value(base))


def find_guard(
    name: str | Callable[..., Any] | None, classes: Classes | None, outputs: Sequence[TensorSpec], sample: Sample
) -> Guard:
    """The guard of this name; None: "top1" or "perplexity" if the outputs are classes and labels fit, else "kl" or "mse".

    A function (or "module:function") of three arguments is a loss of one sample, as for ``analyze``. One of two is a
    score of the whole data set: it gets the outputs and the labels of all samples, by name, stacked along a new first
    axis, and more is better unless it has the attribute ``higher_is_better = False``.
    """
    if name is None:
        return _of_sums(make_metric(_task_metric(classes, outputs, sample), *_ends(classes)))
    function = name if callable(name) else load_function(name) if ":" in name else None
    if function is not None and len(inspect.signature(function).parameters) == 2:
        return _of_data_set(str(getattr(function, "__name__", name)), function, outputs, sample)
    if name in ("kl", "top1", "perplexity") and classes is None:
        raise QCompileError("no output holds classes", node=str(name), remedy="guard mse, cosine or module:function")
    return _of_sums(make_metric(name, *_ends(classes)))


def _ends(classes: Classes | None) -> tuple[str, bool]:
    return (classes.output, classes.probabilities) if classes is not None else ("", False)


def _task_metric(classes: Classes | None, outputs: Sequence[TensorSpec], sample: Sample) -> str:
    if classes is None:
        return "mse"
    shape = next(spec.shape for spec in outputs if spec.name == classes.output)
    rows = int(np.prod(shape[:-1]))
    fitting = [values for values in sample.labels.values() if values.size == rows and values.dtype.kind in "iu"]
    if not fitting:
        return "kl"
    return "top1" if len(shape) == 2 else "perplexity"


def _of_sums(metric: Metric) -> Guard:
    return Guard(metric, lambda rows: metric.finish(rows.sum(axis=0)))


def _of_data_set(name: str, function: Callable[..., Any], outputs: Sequence[TensorSpec], sample: Sample) -> Guard:
    """A row holds the outputs and labels of a sample, one behind the other."""
    parts = [(True, spec.name, spec.shape, np.dtype(spec.dtype)) for spec in outputs]
    parts += [(False, key, values.shape, values.dtype) for key, values in sample.labels.items()]

    def measure(reference: Arrays, changed: Arrays, labels: Arrays) -> np.ndarray:
        found = [(changed if is_output else labels)[key] for is_output, key, _, _ in parts]
        return np.concatenate([np.asarray(values, np.float64).reshape(-1) for values in found])

    def value(rows: np.ndarray) -> float:
        sides: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
        start = 0
        for is_output, key, shape, dtype in parts:
            size = int(np.prod(shape))
            sides[not is_output][key] = rows[:, start : start + size].reshape(-1, *shape).astype(dtype)
            start += size
        return float(function(*sides))

    better = 1 if getattr(function, "higher_is_better", True) else -1
    return Guard(Metric(name, measure, lambda sums: float("nan"), better, relative=False), value)
