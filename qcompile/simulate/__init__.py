"""Forward passes of a model in which the format of each layer is an argument."""

from __future__ import annotations

from qcompile.simulate.simulate import simulate
from qcompile.simulate.simulation import Simulation

__all__ = ["Simulation", "simulate"]
