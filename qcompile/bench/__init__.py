"""Latency side by side with other engines, in one run on one machine."""

from qcompile.bench.contenders import Contender
from qcompile.bench.interleave import Latency, measure

__all__ = ["Contender", "Latency", "measure"]
