"""How long a launch takes, predicted without a GPU: a roofline, and what a launch costs by itself.

::

    seconds = launch + max(cycles of what it computes / clock, bytes that it reads and writes / bandwidth of memory)

Cycles are those of ``Kernel.cycles``: of products on Tensor Cores by ``tile_time``, of other products by ``cycles_of``.
What neither computes much (casts, pooling, sums of tensors) is as long as its bytes. Bytes count as if none were in a
cache. Such times order formats and layers; a GPU at hand measures them.
"""

from __future__ import annotations

from qcompile.targets.cuda.architectures import Architecture
from qcompile.targets.cuda.text import Kernel

# From the end of a kernel to that of an empty one behind it in a graph: A. Gray, "Getting Started with CUDA Graphs",
# NVIDIA developer blog, 2019, has 3.4 us for a kernel that runs 2.9 us; an empty one runs for about one.
LAUNCH = 1.5e-6
_LOADS = 16  # multiply-accumulates a cycle where each takes two loads of a warp, of which L1 caches serve one a cycle
_LATENCY = 8  # cycles from one term of a sum to the next: a load from L1 takes 32, compilers have four under way


def seconds(kernel: Kernel, nbytes: int, arch: Architecture) -> float:
    """Of one launch. nbytes: that its arguments hold."""
    return LAUNCH + max(kernel.cycles / arch.hertz, nbytes / arch.memory)


def cycles_of(results: int, terms: int, arch: Architecture) -> float:
    """Of products without Tensor Cores, a thread for each result, which is a sum of so many terms."""
    return max(results * terms / (arch.processors * _LOADS), terms * _LATENCY)
