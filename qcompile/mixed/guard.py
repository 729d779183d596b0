"""The metric that must not drop: the user's own, or that of the task if the evaluation data have labels."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from qcompile.analyze.data import Sample
from qcompile.analyze.detect import LABELLED, check_labels, choose_metric, classes_for, find_classes
from qcompile.analyze.metrics import Arrays, Metric, call_own, load_function, mean
from qcompile.errors import QCompileError
from qcompile.mixed import margins
from qcompile.model import Model, TensorSpec


@dataclass(frozen=True, slots=True)
class Guard:
    """A metric over a whole data set.

    metric: of one sample, whose ``measure`` gives a row of float64. value: of the rows (samples, n) of all samples.
    estimate: of the drop to expect on other data, from rows and those of fp32; None where that is the drop itself.
    counts: whether the value is a share of samples.
    """

    metric: Metric
    value: Callable[[np.ndarray], float]
    estimate: Callable[[np.ndarray, np.ndarray], float | None] | None = None
    counts: bool = False

    @property
    def name(self) -> str:
        return self.metric.name

    def drop(self, rows: np.ndarray, base: np.ndarray) -> float:
        """How much worse ``rows`` are than those of fp32; below 0 if they are better."""
        if self.metric.relative:
            return self.value(rows)
        return self.metric.better * (self.value(base) - self.value(rows))

    def expected_drop(self, rows: np.ndarray, base: np.ndarray) -> float:
        """The drop to expect on other data of the same kind: what a choice is made by. Infinite for no number."""
        estimated = self.estimate(rows, base) if self.estimate is not None else None
        found = self.drop(rows, base) if estimated is None else estimated
        return math.inf if math.isnan(found) else found


def find_guard(name: str | Callable[..., Any] | None, model: Model, sample: Sample) -> Guard:
    """The guard of this name; None: "top1" or "perplexity" for classes with labels, without these "kl", else "mse".

    A function (or "module:function") of three arguments is a loss of one sample, as for ``analyze``. One of two is a
    score of the whole data set: it gets the outputs and the labels of all samples, by name, stacked along a new first
    axis, and more is better unless it has the attribute ``higher_is_better = False``. Arguments with defaults are its
    own.

    Raises QCompileError for labels that the metric needs and ``sample`` lacks.
    """
    if name is None:
        name = _task_metric(model, sample)
    if name in LABELLED:
        check_labels(model, str(name), sample)
    if name == "top1":
        return _of_answers(choose_metric(model, name), model)
    if name is None:
        return _of_sums(choose_metric(model))
    function = name if callable(name) else load_function(name) if ":" in name else None
    if function is not None and _count_arguments(function) == 2:
        return _of_data_set(str(getattr(function, "__name__", name)), function, model.outputs, sample)
    return _of_sums(choose_metric(model, name))


def _count_arguments(function: Callable[..., Any]) -> int:
    parameters = inspect.signature(function).parameters.values()
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _task_metric(model: Model, sample: Sample) -> str | None:
    classes = find_classes(model)
    if classes is None:
        return None
    shape = next(spec.shape for spec in model.outputs if spec.name == classes.output)
    rows = int(np.prod(shape[:-1]))
    if not any(values.size == rows and values.dtype.kind in "iu" for values in sample.labels.values()):
        return None
    return "top1" if len(shape) == 2 else "perplexity"


def _of_sums(metric: Metric) -> Guard:
    return Guard(metric, lambda rows: metric.finish(rows.sum(axis=0)))


def _of_answers(metric: Metric, model: Model) -> Guard:
    """Top-1, with the margin of every answer."""
    classes = classes_for(model, metric.name)
    measure = partial(margins.measure, classes.output, classes.probabilities)
    return replace(_of_sums(replace(metric, measure=measure)), estimate=margins.expected_drop, counts=True)


def _of_data_set(name: str, function: Callable[..., Any], outputs: Sequence[TensorSpec], sample: Sample) -> Guard:
    """A row holds the outputs and labels of a sample, one behind the other."""
    parts = [(True, spec.name, spec.shape, np.dtype(spec.dtype)) for spec in outputs]
    parts += [(False, key, values.shape, values.dtype) for key, values in sample.labels.items()]
    measure = partial(_all_values, tuple((is_output, key, shape) for is_output, key, shape, _ in parts))

    def value(rows: np.ndarray) -> float:
        sides: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
        start = 0
        for is_output, key, shape, dtype in parts:
            size = int(np.prod(shape))
            sides[not is_output][key] = rows[:, start : start + size].reshape(-1, *shape).astype(dtype)
            start += size
        return call_own(function, *sides)

    better = 1 if getattr(function, "higher_is_better", True) else -1
    return Guard(Metric(name, measure, mean, better, relative=False, own=True), value)


def _all_values(
    parts: Sequence[tuple[bool, str, tuple[int, ...]]], reference: Arrays, changed: Arrays, labels: Arrays
) -> np.ndarray:
    found = []
    for is_output, key, shape in parts:
        values = (changed if is_output else labels).get(key)
        if values is None or values.shape != shape:
            reason = f"'{key}' is {shape} in one sample and {'missing' if values is None else values.shape} in another"
            raise QCompileError(reason, node="evaluation data", remedy="pad the labels of all samples to one shape")
        found.append(values.reshape(-1).astype(np.float64))
    return np.concatenate(found)
