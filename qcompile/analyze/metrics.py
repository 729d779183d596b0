"""Losses of a changed model against the float one: sums over samples, and what they mean in the end.

Sums of different samples are added up in order, so that results depend neither on blocks nor on workers.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qcompile.calibrate.data import LABELS
from qcompile.errors import QCompileError, nearest

Arrays = Mapping[str, np.ndarray]
# (outputs of fp32, outputs of the changed model, labels of this sample) -> sums, float64 (n,)
Measure = Callable[[Arrays, Arrays, Arrays], np.ndarray]
SMALLEST = 2.0**-24  # probability that stands for 0, so that an 8-bit softmax has a logarithm


@dataclass(frozen=True, slots=True)
class Metric:
    """measure: of one sample. finish: what the sums over all samples say. better: 1 if more is better, -1 if less is.

    relative: whether it compares with fp32, so that it is 0 for fp32 itself. own: whether it is a user's function.
    It can be sent to other processes, as far as a function of one's own can.
    """

    name: str
    measure: Measure
    finish: Callable[[np.ndarray], float]
    better: int = -1
    relative: bool = True
    own: bool = False

    def loss(self, sums: np.ndarray, baseline: np.ndarray) -> float:
        """The increase over fp32; larger is worse."""
        value = self.finish(sums)
        return value if self.relative else -self.better * (value - self.finish(baseline))


def divergence(output: str, probabilities: bool, reference: Arrays, changed: Arrays, labels: Arrays) -> np.ndarray:
    """Kullback-Leibler divergence of an output's distributions, in nats, and their number; the last axis is classes."""
    log_p, log_q = (log_probabilities(outputs[output], probabilities) for outputs in (reference, changed))
    return np.array([(np.exp(log_p) * (log_p - log_q)).sum(), log_p.size // log_p.shape[-1]], np.float64)


def log_probabilities(values: np.ndarray, probabilities: bool) -> np.ndarray:
    x = values.astype(np.float64)
    if probabilities:
        x = np.log(np.maximum(x, SMALLEST))
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def squared_error(reference: Arrays, changed: Arrays, labels: Arrays) -> np.ndarray:
    """Of each float output: sum of squares of the difference, and of the output."""
    sums = []
    for name, values in reference.items():
        if values.dtype.kind == "f":
            a, b = values.reshape(-1).astype(np.float64), changed[name].reshape(-1).astype(np.float64)
            sums += [(a - b) @ (a - b), a @ a]
    return np.array(sums, np.float64)


def mean_ratio(sums: np.ndarray) -> float:
    """Relative squared error, the mean over outputs."""
    noise, signal = sums[::2], sums[1::2]
    ratios = np.divide(noise, signal, out=np.where(noise > 0, np.inf, 0.0), where=signal > 0)
    return float(ratios.mean()) if ratios.size else 0.0


def decibels(ratio: float) -> float:
    """Signal to noise, of noise to signal; 300 for none."""
    return float(-10 * np.log10(max(ratio, 1e-30)))


def angle(reference: Arrays, changed: Arrays, labels: Arrays) -> np.ndarray:
    """1 - cosine, summed over float outputs, and their number."""
    total, count = 0.0, 0
    for name, values in reference.items():
        if values.dtype.kind == "f":
            a, b = values.reshape(-1).astype(np.float64), changed[name].reshape(-1).astype(np.float64)
            length = np.sqrt((a @ a) * (b @ b))
            total += float(1 - (a @ b) / length) if length else float((a @ a) != (b @ b))
            count += 1
    return np.array([total, count], np.float64)


def mean(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def hits(output: str, reference: Arrays, changed: Arrays, labels: Arrays) -> np.ndarray:
    """Right answers, and their number; labels hold the right class of each row of the output."""
    classes = changed[output].argmax(axis=-1).reshape(-1)
    right = labels_of(labels, classes.size, changed[output].shape[-1])
    return np.array([(classes == right).sum(), classes.size], np.float64)


def surprise(output: str, probabilities: bool, reference: Arrays, changed: Arrays, labels: Arrays) -> np.ndarray:
    """Negative logarithm of the right classes' probability, and their number; a label below 0 does not count."""
    log_q = log_probabilities(changed[output], probabilities)
    log_q = log_q.reshape(-1, log_q.shape[-1])
    right = labels_of(labels, *log_q.shape)
    rows = np.flatnonzero(right >= 0)
    return np.array([-log_q[rows, right[rows]].sum(), rows.size], np.float64)


def perplexity(sums: np.ndarray) -> float:
    return float(np.exp(mean(sums)))


def labels_of(labels: Arrays, count: int, classes: int) -> np.ndarray:
    """``count`` integers, one for each row of an output of so many classes. Raises QCompileError if there are none."""
    found = [labels[name] for name in LABELS if name in labels] or list(labels.values())
    fitting = [values for values in found if values.size == count and values.dtype.kind in "iu"]
    if not fitting:
        shown = ", ".join(f"'{name}' {values.dtype} {values.shape}" for name, values in labels.items()) or "none"
        raise QCompileError(
            f"the metric needs {count} labels a run of the model, and there are: {shown}",
            node="evaluation data",
            remedy="add an integer array 'labels' to it, one row a sample",
        )
    right = fitting[0].reshape(-1)
    if right.max() >= classes:
        reason = f"label {right.max()}, and the model has {classes} classes, from 0"
        raise QCompileError(reason, node="evaluation data", remedy="number the classes as the model does")
    return right


def own(
    function: Callable[[Arrays, Arrays, Arrays], float], reference: Arrays, changed: Arrays, labels: Arrays
) -> np.ndarray:
    """A user's loss of one sample, and 1."""
    return np.array([call_own(function, reference, changed, labels), 1.0], np.float64)


def call_own(function: Callable[..., Any], *arguments: Any) -> float:
    """What a user's function answers. Raises QCompileError, with the place, if it fails or gives no number."""
    name = getattr(function, "__name__", "metric")
    try:
        value = function(*arguments)
    except QCompileError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} (line {place.lineno} of {place.filename})"
        raise QCompileError(reason, node=name, remedy="it is called with outputs and labels by name") from error
    try:
        return float(value)
    except (TypeError, ValueError):
        raise QCompileError(f"it gives {value!r:.60}, not a number", node=name, remedy="return a float") from None


NAMES = ("kl", "mse", "sqnr", "cosine", "top1", "perplexity")


def make_metric(name: str | Callable[..., Any], output: str, probabilities: bool) -> Metric:
    """A metric by its name, "module:function", or a function of one's own.

    output: whose last axis is classes; probabilities: whether it holds these, or logits.
    "sqnr" counts the noise in relation to the signal, which adds up; decibels stand among the scores.

    A function takes the outputs of the float model and of the changed one, by name, and the arrays of this sample in
    the evaluation data that are no inputs; it answers with a loss. The mean over samples counts.
    """
    if callable(name):
        return Metric(getattr(name, "__name__", "own"), partial(own, name), mean, relative=False, own=True)
    if ":" in name:
        return Metric(name, partial(own, load_function(name)), mean, relative=False, own=True)
    if name not in NAMES:
        raise QCompileError(f"unknown metric '{name}'", remedy=nearest(name, NAMES) + ", or module:function")
    return {
        "kl": Metric("kl", partial(divergence, output, probabilities), mean),
        "mse": Metric("mse", squared_error, mean_ratio),
        "sqnr": Metric("sqnr", squared_error, mean_ratio),
        "cosine": Metric("cosine", angle, mean),
        "top1": Metric("top1", partial(hits, output), mean, better=1, relative=False),
        "perplexity": Metric("perplexity", partial(surprise, output, probabilities), perplexity, relative=False),
    }[name]


def load_function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the working directory
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise QCompileError(f"no such function ({error})", node=name, remedy="give module:function") from None
    if not callable(found):
        raise QCompileError("it is not a function", node=name, remedy="give module:function")
    return found  # type: ignore[no-any-return]
