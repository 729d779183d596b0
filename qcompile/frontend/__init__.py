"""From an ONNX file or a Relax module to a float ``Model``."""
