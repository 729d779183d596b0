"""Loading and running artifacts. Needs the TVM runtime library and numpy: no compiler, no ONNX."""

from qcompile.runtime.memory import aligned_empty
from qcompile.runtime.profile import KernelTime, Profile
from qcompile.runtime.runner import Binding, Runner, load

__all__ = ["Binding", "KernelTime", "Profile", "Runner", "aligned_empty", "load"]
