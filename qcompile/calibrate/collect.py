"""One pass over the calibration data that fills the statistics of every float tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qcompile.calibrate.data import CalibrationData, calibration_data
from qcompile.calibrate.executor import Executor, default_executor
from qcompile.calibrate.methods import check_method, needs_histogram
from qcompile.calibrate.stats import TensorRecord, TensorStats
from qcompile.errors import QCompileError
from qcompile.model import Model


def calibrate(
    model: Model,
    data: Any,
    method: str = "minmax",
    num_samples: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> TensorStats:
    """Statistics of the model's float inputs and of every float tensor in it, over the data, read once.

    data: whatever ``calibration_data`` takes, or what it returned (``num_samples`` does not apply to that).
    method: what the ranges will be chosen by; histograms are kept only for methods that need them.
    executor: runs the float model, ``feeds -> name -> float32 array``; None for ``default_executor(model)``.
    progress: called with the number of samples done, after each feed.

    Raises ``QCompileError`` for data that the inputs cannot take, and for data that are the same number everywhere.
    """
    check_method(method)
    feeds = data if isinstance(data, CalibrationData) else calibration_data(data, model.inputs, num_samples)
    run = executor or default_executor(model)
    float_inputs = [spec.name for spec in model.inputs if spec.dtype == "float32"]
    axes = channel_axes(model)
    records: dict[str, TensorRecord] = {}
    for feed in feeds:
        tensors = {**{name: feed[name] for name in float_inputs}, **run(feed)}
        for name, values in tensors.items():
            record = TensorRecord.of(values, needs_histogram(method), axes.get(name))
            records[name] = records[name].merge(record) if name in records else record
        if progress:
            progress(feeds.rows)
    if float_inputs and all(records[name].min == records[name].max for name in float_inputs):
        name = float_inputs[0]
        raise QCompileError(
            f"every calibration value is {records[name].min:g}: no range can be found in constant data",
            node=name,
            remedy="give samples of real inputs",
        )
    return TensorStats(records, feeds.rows)


def channel_axes(model: Model) -> dict[str, int]:
    """Tensor -> axis of its channels, for what layers with a constant weight read (the first decides), and what layers
    make whose channels some others may scale.
    """
    from qcompile.graph import read
    from qcompile.passes.chain import WEIGHTED, find_chains
    from qcompile.passes.channel_classes import ChannelClasses

    axes: dict[str, int] = {}
    main = read(model.module)
    chains = find_chains(main)
    for chain in chains:
        if chain.kind in WEIGHTED:
            axis = len(chain.inputs[0].ty.shape) - 1 if chain.kind == "dense" else 1
            axes.setdefault(getattr(chain.inputs[0], "name", ""), axis)
    classes = ChannelClasses(main)
    for chain in chains:
        numbers = classes.numbers.get(chain.out)
        along = [] if numbers is None else [axis for axis, extent in enumerate(numbers.shape) if extent > 1]
        if len(along) == 1 and not classes.reasons.keys() >= set(numbers.reshape(-1).tolist()):
            axes.setdefault(chain.name, along[0])
    return axes
