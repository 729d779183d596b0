"""Tiny ONNX models, and what they compute: by ONNX Runtime, and by our import through TVM's own lowering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import helper, numpy_helper
from tvm import relax
from tvm.runtime.vm import VirtualMachine

from qcompile import graph
from qcompile.frontend import import_onnx
from qcompile.model import Model

Shape = Sequence[int | str | None]


def node(op_type: str, inputs: str, outputs: str = "y", name: str = "", **attributes: object) -> onnx.NodeProto:
    """``inputs`` and ``outputs`` are names with blanks between them; "_" is an absent one."""
    names = [["" if n == "_" else n for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op_type, *names, name=name, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str] = ("y",),
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    dtypes: Mapping[str, type] | None = None,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model; inputs are float32 unless ``dtypes`` says otherwise, types of outputs come from shape inference."""
    dtypes = dtypes or {}
    declared = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(dtypes.get(n, np.float32))), shape)
        for n, shape in inputs.items()
    ]
    results = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(dtypes.get(n, np.float32))), None)
        for n in outputs
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), n) for n, value in (constants or {}).items()]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(
        helper.make_graph(list(nodes), "tiny", declared, results, tensors), opset_imports=opsets, ir_version=9
    )


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def operators(imported: Model) -> list[str]:
    """Short names of the operators of main, in order."""
    return [
        value.op.name.rpartition(".")[2] if isinstance(value, relax.Call) else type(value).__name__
        for _, value in graph.read(imported.module).bindings
    ]


def names(imported: Model) -> list[str]:
    return [var.name for var, _ in graph.read(imported.module).bindings]


def run(imported: Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    relax.analysis.well_formed(imported.module)
    with tvm.transform.PassContext(opt_level=0):
        machine = VirtualMachine(relax.build(imported.module, "llvm"), tvm.cpu())
    results = machine["main"](*(tvm.runtime.tensor(np.asarray(feeds[i.name], order="C")) for i in imported.inputs))
    return [result.numpy() for result in results]


def run_onnxruntime(source: onnx.ModelProto | str, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = source if isinstance(source, str) else source.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def random_feeds(imported: Model, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        i.name: rng.standard_normal(i.shape).astype(i.dtype)
        if "float" in i.dtype
        else rng.integers(0, 2, i.shape).astype(i.dtype)
        for i in imported.inputs
    }


def check(
    proto: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    rtol: float = 1e-5,
) -> Model:
    """Imports, runs, and compares every output with ONNX Runtime: dtype, shape, values to ``rtol`` of the largest."""
    imported = import_onnx(proto, input_shapes)
    feeds = random_feeds(imported) if feeds is None else feeds
    expected = run_onnxruntime(proto, feeds)
    for spec, ours, theirs in zip(imported.outputs, run(imported, feeds), expected, strict=True):
        assert (str(ours.dtype), ours.shape) == (str(theirs.dtype), theirs.shape) == (spec.dtype, spec.shape)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * max(1.0, np.abs(theirs).max(initial=0)))
    return imported
