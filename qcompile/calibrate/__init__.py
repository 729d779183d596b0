"""Calibration: run the float model over samples, keep statistics of its tensors, choose ranges and scales from them."""

from qcompile.calibrate.collect import calibrate
from qcompile.calibrate.data import RANDOM_DATA_WARNING, CalibrationData, calibration_data, random_data
from qcompile.calibrate.executor import Executor, default_executor
from qcompile.calibrate.histogram import Histogram
from qcompile.calibrate.methods import METHODS, entropy, minmax, mse, percentile, ranges, tensor_range
from qcompile.calibrate.scales import affine, symmetric_weight_scales
from qcompile.calibrate.stats import TensorRecord, TensorStats

__all__ = [
    "METHODS",
    "RANDOM_DATA_WARNING",
    "CalibrationData",
    "Executor",
    "Histogram",
    "TensorRecord",
    "TensorStats",
    "affine",
    "calibrate",
    "calibration_data",
    "default_executor",
    "entropy",
    "minmax",
    "mse",
    "percentile",
    "random_data",
    "ranges",
    "symmetric_weight_scales",
    "tensor_range",
]
