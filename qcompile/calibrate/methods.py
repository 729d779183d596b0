"""Which range of a tensor's values the 256 codes should cover: auto, minmax, percentile, entropy, mse.

Each method is a function ``TensorRecord -> (low, high)`` of real bounds. A range always includes 0 and never exceeds
the values seen. All but minmax read the histogram. Auto, entropy and mse choose among the same windows of bins, one
for each magnitude ``t`` (in bins): all of the histogram that lies in ``[-t, t)``. For a tensor of both signs that is
the symmetric window of TensorRT, for the output of a relu it is ``[0, t)``, and for one with a short negative tail
(SiLU) the tail stays.
"""

from __future__ import annotations

import numpy as np

from qcompile.calibrate.histogram import Histogram
from qcompile.calibrate.stats import TensorRecord, TensorStats
from qcompile.errors import QCompileError, nearest

METHODS = ("auto", "minmax", "percentile", "entropy", "mse")
LEVELS = 256  # codes of an 8-bit tensor
PERCENTILE = 99.99
MSE_STEPS = 256  # windows that auto and mse try, evenly spaced
SIGMAS = 4.0  # that auto keeps of each channel
SMOOTH = 1e-4  # of a value
TIE = 1e-9  # nats: divergences closer than this count as equal, and the wider range is taken

Range = tuple[float, float]


def minmax(record: TensorRecord) -> Range:
    """The smallest and the largest value."""
    return min(record.min, 0.0), max(record.max, 0.0)


def percentile(record: TensorRecord, percent: float = PERCENTILE) -> Range:
    """The range without the outermost values: at most ``(100 - percent) / 2`` percent of them on each side.

    low is the lower edge of the first bin at which the count from below passes that share, high the upper edge of the
    first one from above; so at least ``percent`` of the values lie inside. (ONNX Runtime's PercentileCalibrater,
    symmetric=False, less its habit of taking the lower edge on both sides.)
    """
    if not 0 < percent <= 100:
        raise QCompileError(f"percentile {percent:g} is not above 0 and at most 100", remedy="99.99 is usual")
    histogram = _histogram(record, "percentile")
    share = record.count * (1 - percent / 100) / 2
    below = np.cumsum(histogram.counts)
    above = np.cumsum(histogram.counts[::-1])
    if below[-1] == 0:
        return 0.0, 0.0
    start, cut_above = int(np.argmax(below > share)), int(np.argmax(above > share))
    return _bounds(record, histogram, start, histogram.counts.size - cut_above)


def entropy(record: TensorRecord, levels: int = LEVELS) -> Range:
    """The window that loses least information: the smallest KL divergence, as TensorRT chooses.

    (S. Migacz, 8-bit Inference with TensorRT, GTC 2017.) For each window of at least ``levels`` bins:

    P: the counts, those outside the window added to its outermost bins.
    Q: the counts of the window merged into ``levels`` levels, each spread evenly over its bins that are not empty.
       Bin ``j`` of ``n`` goes to level ``floor(j * levels / n)`` (NVIDIA's pytorch-quantization; ONNX Runtime puts a
       remainder of up to ``n / 2`` bins into the last level).
    KL(P || Q) = sum P log(P / Q) - P + Q, both divided by the number of values. Where values from outside fall on an
       empty bin, Q = 0 is taken as ``SMOOTH`` of a value (what MXNet and ONNX Runtime do).

    Q is short of the values outside, a share c. TensorRT scales it up to sum 1, which changes the divergence by about
    c^2 / 2, but calls a window perfect that holds a single value of a tensor far from 0 (all others fall on its bin).

    The bin of 0 counts no more than the larger of its neighbours, or the zeros of a relu, which any range keeps
    exact, would decide alone (pytorch-quantization as well).
    """
    histogram = _histogram(record, "entropy")
    counts = histogram.counts.astype(np.float64)
    zero = -histogram.first
    neighbours = np.delete(counts[max(zero - 1, 0) : zero + 2], min(zero, 1))
    counts[zero] = min(counts[zero], neighbours.max(initial=0.0))
    starts, stops = _windows(histogram)
    wide = stops - starts >= levels
    starts, stops = starts[wide], stops[wide]
    if not starts.size or not counts.any():
        return minmax(record)
    divergence = _divergences(counts, starts, stops, levels)
    best = int(np.flatnonzero(divergence <= divergence.min() + TIE)[-1])
    return _bounds(record, histogram, int(starts[best]), int(stops[best]))


def auto(record: TensorRecord, levels: int = LEVELS) -> Range:
    """The window of the smallest mean of ``error^4``, but no smaller than what is usual in each channel.

    Between mse, which cuts off what is rare however far out it is, and minmax, which is the limit of higher powers:
    rounding errors have random signs and cancel in the sums that follow, what clipping takes away always has the same.
    What is rare in the tensor may be usual in one channel (an outlier feature of a transformer): the range reaches
    ``SIGMAS`` standard deviations about the mean of each, as far as there are values. Minmax for a record without a
    histogram.
    """
    if record.histogram is None:
        return minmax(record)
    low, high = _least_error(record, levels, 4)
    if record.channels is not None:
        mean = record.channels.mean
        spread = SIGMAS * np.sqrt(np.maximum(record.channels.mean_square - np.square(mean), 0))
        low = min(low, max(float((mean - spread).min()), record.min))
        high = max(high, min(float((mean + spread).max()), record.max))
    return low, high


def mse(record: TensorRecord, levels: int = LEVELS) -> Range:
    """The window that quantizes with the smallest mean squared error. (The search of pytorch-quantization's
    ``_compute_amax_mse``, with an asymmetric quantizer.)
    """
    return _least_error(record, levels, 2)


def _least_error(record: TensorRecord, levels: int, power: int) -> Range:
    """The window of the smallest mean of ``|error|^power``; the middle of a bin stands for its values.

    Tried are ``MSE_STEPS`` windows, evenly spaced up to the whole histogram; of equal ones the widest wins.
    """
    histogram = _histogram(record, "mse")
    used = np.flatnonzero(histogram.counts)
    weights, values = histogram.counts[used].astype(np.float64), histogram.centers[used]
    starts, stops = _windows(histogram)
    best, least = minmax(record), np.inf
    for step in range(MSE_STEPS, 0, -1):
        i = -(-step * starts.size // MSE_STEPS) - 1
        low, high = _bounds(record, histogram, int(starts[i]), int(stops[i]))
        scale = (high - low) / (levels - 1)
        if scale == 0:
            continue
        zero_point = np.rint(-low / scale)
        codes = np.clip(np.rint(values / scale), -zero_point, levels - 1 - zero_point)
        square = np.square(codes * scale - values)
        error = float(weights @ (square if power == 2 else np.square(square)))
        if error < least:
            best, least = (low, high), error
    return best


def tensor_range(
    record: TensorRecord, method: str = "minmax", percent: float = PERCENTILE, levels: int = LEVELS
) -> Range:
    """The range by the method of this name; ``percent`` is for percentile, ``levels`` for auto, entropy and mse."""
    check_method(method)
    if method == "auto":
        return auto(record, levels)
    if method == "percentile":
        return percentile(record, percent)
    if method == "entropy":
        return entropy(record, levels)
    return mse(record, levels) if method == "mse" else minmax(record)


def ranges(
    stats: TensorStats, method: str = "minmax", percent: float = PERCENTILE, levels: int = LEVELS
) -> dict[str, Range]:
    """Tensor name -> range, by the method of this name; an error names the tensor."""
    result = {}
    for name, record in stats.records.items():
        try:
            result[name] = tensor_range(record, method, percent, levels)
        except QCompileError as error:
            raise QCompileError(error.reason, node=name, remedy=error.remedy) from None
    return result


def check_method(method: str) -> None:
    if method not in METHODS:
        raise QCompileError(f"unknown calibration method '{method}'", remedy=nearest(method, METHODS))


def needs_histogram(method: str) -> bool:
    return method != "minmax"


def _histogram(record: TensorRecord, method: str) -> Histogram:
    if record.histogram is None:
        raise QCompileError(
            f"no histogram, which the method '{method}' needs",
            remedy=f"calibrate with method='{method}', or use 'minmax'",
        )
    return record.histogram


def _windows(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """(m,), (m,): first and end position in ``counts`` of the window [-t, t), for t = 1 ... m bins; the last is all."""
    zero, size = -histogram.first, histogram.counts.size
    magnitude = np.arange(1, max(zero, size - zero) + 1)
    return np.maximum(zero - magnitude, 0), np.minimum(zero + magnitude, size)


def _bounds(record: TensorRecord, histogram: Histogram, start: int, stop: int) -> Range:
    """Real bounds of the bins ``start`` to ``stop``, within the values seen, with 0."""
    low, high = ((histogram.first + edge) * histogram.width for edge in (start, stop))
    return min(max(low, record.min), 0.0), max(min(high, record.max), 0.0)


def _divergences(counts: np.ndarray, starts: np.ndarray, stops: np.ndarray, levels: int) -> np.ndarray:
    """(m,): KL(P || Q) of each window, in nats (see ``entropy``).

    Q is the same for all bins of a level that are not empty, so sums over bins become differences of running sums at
    the edges of the levels: 256 terms a window instead of 2048.
    """
    size = stops - starts
    edges = starts[:, None] + -(np.arange(levels + 1) * -size[:, None] // levels)  # ceil(l n / levels)
    mass = np.diff(_running(counts)[edges], axis=1)
    filled = np.diff(_running(counts > 0)[edges], axis=1)
    log_q = np.log(np.divide(mass, filled, out=np.ones_like(mass), where=mass > 0))  # of a bin that is not empty

    running, plogp = _running(counts), _running(_xlogx(counts))
    first, last = counts[starts], counts[stops - 1]
    left, right = running[starts], counts.sum() - running[stops]  # values outside
    empty_first, empty_last = (left > 0) & (first == 0), (right > 0) & (last == 0)
    own = plogp[stops] - plogp[starts] - _xlogx(first) - _xlogx(last) + _xlogx(first + left) + _xlogx(last + right)
    cross = (mass * log_q).sum(axis=1)
    cross += left * np.where(empty_first, np.log(SMOOTH), log_q[:, 0])
    cross += right * np.where(empty_last, np.log(SMOOTH), log_q[:, -1])
    total = counts.sum()
    q_total = mass.sum(axis=1) + SMOOTH * (empty_first + empty_last.astype(np.float64))
    return (own - cross + q_total) / total - 1


def _running(x: np.ndarray) -> np.ndarray:
    """(n + 1,) float64: sums of the first 0 ... n elements."""
    return np.concatenate([[0.0], np.cumsum(x, dtype=np.float64)])


def _xlogx(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))
