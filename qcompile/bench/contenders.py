"""What is measured: a model in one engine, opened as a function without arguments that does one inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qcompile.errors import QCompileError

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Contender:
    """One engine with one model; ``open`` it in the process that measures.

    engine: "qcompile", "onnxruntime" or "openvino". format: "int8" or "fp32". path: artifact folder, .onnx or .xml.
    feed: one inference's inputs. All engines read inputs and write outputs that were allocated once.
    """

    engine: str
    format: str
    path: Path
    threads: int = 1
    feed: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def label(self) -> str:
        return f"{self.engine} {self.format}"

    def open(self) -> Call:
        """Raises ``QCompileError`` if the engine refuses the model."""
        try:
            return {"qcompile": _qcompile, "onnxruntime": _onnxruntime, "openvino": _openvino}[self.engine](self)
        except QCompileError:
            raise
        except Exception as error:  # each engine has its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise QCompileError(f"cannot run it: {reason}", node=f"{self.label} {self.path.name}") from error


def _qcompile(self: Contender) -> Call:
    from qcompile.runtime import load

    runner = load(self.path, verify=False)
    if runner.manifest.threads != self.threads:
        raise QCompileError(
            f"built for {runner.manifest.threads} threads, not {self.threads}",
            node=str(self.path),
            remedy=f"build it with --threads {self.threads}",
        )
    feed = dict(self.feed)
    return lambda: runner.run(feed)


def _onnxruntime(self: Contender) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = self.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    feed = {name: np.ascontiguousarray(array) for name, array in self.feed.items()}
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for output, value in zip(session.get_outputs(), session.run(None, feed), strict=True):
        binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(value))
    return lambda: session.run_with_iobinding(binding)


def _openvino(self: Contender) -> Call:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(str(self.path))
    model.reshape({name: list(array.shape) for name, array in self.feed.items()})
    settings = {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    arrays = [np.ascontiguousarray(array) for array in self.feed.values()]
    for name, array in zip(self.feed, arrays, strict=True):
        request.set_tensor(name, ov.Tensor(array, shared_memory=True))

    def call(arrays: object = arrays) -> None:  # start_async and wait would add two thread switches
        request.infer(share_inputs=True, share_outputs=True)

    return call
