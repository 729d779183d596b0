"""From an ONNX file or a Relax module to a float ``Model``."""

from qcompile.frontend.onnx_import import import_onnx
from qcompile.frontend.relax_import import import_relax

__all__ = ["import_onnx", "import_relax"]
