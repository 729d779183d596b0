"""Latency side by side with other engines, in one run on one machine."""

from qcompile.bench.contenders import Contender
from qcompile.bench.interleave import Latency, measure
from qcompile.bench.peak import Peak, measure_peak

__all__ = ["Contender", "Latency", "Peak", "measure", "measure_peak"]
