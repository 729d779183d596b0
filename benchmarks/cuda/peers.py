"""ResNet-50 by others on the same GPU: torch in fp16, ONNX Runtime's CUDA provider, TensorRT in fp16 and int8.

Weights are random; time is not. What is not installed is left out, with the reason.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CALLS = 100
SIDE = 224


def measure(peer: str, batch: int) -> dict[str, Any]:
    """Microseconds of the fastest call, by what was called."""
    name = f"{peer} {batch}"
    try:
        found = {"torch": _torch, "onnxruntime": _onnxruntime, "tensorrt": _tensorrt}[peer](batch)
    except ImportError as error:
        print(f"{name:24} left out: {error}")
        return {"left_out": str(error)}
    except Exception as error:  # of many kinds, and no fault of what is measured
        line = next(iter(str(error).strip().splitlines()), "")
        print(f"{name:24} left out: {type(error).__name__}: {line}")
        return {"left_out": f"{type(error).__name__}: {line}"}
    for what, best in found.items():
        print(f"resnet50 batch {batch:<9} {what}: min {best:.1f} us")
    return {"us": found}


def _torch(batch: int) -> dict[str, float]:
    from benchmarks.cuda.torch_resnet50 import fp16_microseconds

    return fp16_microseconds(batch, CALLS)


def _exported(batch: int, folder: str, half: bool) -> Path:
    """The network as ONNX."""
    import torch

    from benchmarks.cuda.torch_resnet50 import resnet50

    if not torch.cuda.is_available():
        raise ImportError("torch sees no GPU")
    model = resnet50().eval()
    x = torch.randn(batch, 3, SIDE, SIDE)
    if half:
        model, x = model.cuda().half(), x.cuda().half()
    path = Path(folder) / "resnet50.onnx"
    torch.onnx.export(model, (x,), str(path), input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)
    return path


def _onnxruntime(batch: int) -> dict[str, float]:
    import onnxruntime as ort
    import torch

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ImportError("this ONNX Runtime has no CUDA provider (pip install onnxruntime-gpu)")
    with tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
        path = _exported(batch, folder, half=True)
        provider = ("CUDAExecutionProvider", {"enable_cuda_graph": "1"})
        session = ort.InferenceSession(str(path), providers=[provider])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise ImportError("ONNX Runtime's CUDA provider does not load here")
    x = torch.randn(batch, 3, SIDE, SIDE, device="cuda", dtype=torch.float16)
    y = torch.empty(batch, 1000, device="cuda", dtype=torch.float16)
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, np.float16, tuple(x.shape), x.data_ptr())
    binding.bind_output("y", "cuda", 0, np.float16, tuple(y.shape), y.data_ptr())
    return {"ONNX Runtime fp16, CUDA graph": _wall(lambda: session.run_with_iobinding(binding))}


def _tensorrt(batch: int) -> dict[str, float]:
    import tensorrt as trt
    import torch

    with tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
        onnx = _exported(batch, folder, half=False).read_bytes()
    found = {}
    for what, flags in (("fp16", ("FP16",)), ("int8", ("FP16", "INT8"))):
        try:
            found[f"TensorRT {what}"] = _engine(torch, trt, onnx, flags)
        except Exception as error:  # newer releases have no such flag, say
            print(f"TensorRT {what} is left out: {type(error).__name__}: {str(error).splitlines()[:1]}")
    return found


def _engine(torch: Any, trt: Any, onnx: bytes, flags: tuple[str, ...]) -> float:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", 0)))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        raise RuntimeError(str(parser.get_error(0)))
    config = builder.create_builder_config()
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if "INT8" in flags:  # any range will do: what is measured is time
        for tensor in _tensors(network):
            tensor.set_dynamic_range(-4.0, 4.0)
    engine = trt.Runtime(logger).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    held = {name: torch.randn(*engine.get_tensor_shape(name), device="cuda") for name in names}
    for name, tensor in held.items():
        context.set_tensor_address(name, tensor.data_ptr())
    return _graphed(torch, context.execute_async_v3)


def _tensors(network: Any) -> list[Any]:
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return [*inputs, *(layer.get_output(i) for layer in layers for i in range(layer.num_outputs))]


def _graphed(torch: Any, execute: Callable[[int], Any]) -> float:
    """A call on a stream as a CUDA graph, by the GPU's clock."""
    from benchmarks.cuda.torch_resnet50 import fastest

    stream = torch.cuda.Stream()
    for _ in range(3):
        execute(stream.cuda_stream)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        execute(stream.cuda_stream)
    return fastest(graph.replay, CALLS)


def _wall(call: Callable[[], Any]) -> float:
    """Microseconds by the host's clock, of calls that wait for the GPU."""
    times = []
    for _ in range(CALLS + 10):
        start = time.perf_counter()
        call()
        times.append(1e6 * (time.perf_counter() - start))
    return min(times[10:])
