"""Loading and running artifacts. Needs numpy and TVM's runtime library, or NVIDIA's driver: no compiler, no ONNX."""

from qcompile.runtime.cuda import CudaBinding, CudaRunner
from qcompile.runtime.load import load
from qcompile.runtime.memory import aligned_empty
from qcompile.runtime.profile import KernelTime, Profile
from qcompile.runtime.runner import Binding, Runner

__all__ = [
    "Binding",
    "CudaBinding",
    "CudaRunner",
    "KernelTime",
    "Profile",
    "Runner",
    "aligned_empty",
    "load",
]
