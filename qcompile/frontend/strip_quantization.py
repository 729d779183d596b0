"""Pre-quantized models: the float graph underneath, and the scales as a plan.

Before -> after (the same for QOperator models, where one node says all of it)::

    x -> QuantizeLinear -> DequantizeLinear -> Conv <- DequantizeLinear <- codes     x -> Conv <- scale * (codes - zero)
    + QuantPlan: x: scale, zero point (uint8 or int8);  <output of Conv>.weight and .bias: scales along their axis

A quantizer drops a Relu or Clip before a QuantizeLinear that saturates at the same value; it is put back as Clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qcompile.errors import QCompileError
from qcompile.frontend.imported_scales import WEIGHTED, ImportedScales
from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, MICROSOFT, InputInfo, Node, OnnxGraph
from qcompile.frontend.qoperators import QRule, rule_for, weight_axis
from qcompile.frontend.quant_params import ACTIVATION_DTYPES, Quant
from qcompile.plan import QuantPlan

MOVES = {  # operators that only move or choose elements: they mean the same for codes and for real values
    *("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Gather", "GatherElements"),
    *("Slice", "Split", "Concat", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "MaxPool", "GlobalMaxPool"),
}
RANGES = {*WEIGHTED, "Add", "Sum", "Sub", "BatchNormalization"}  # results that a dropped Relu may have bounded


def strip_quantization(graph: OnnxGraph) -> QuantPlan | None:
    """Rewrites ``graph`` into float operators; the plan that its scales make, None if it has none."""
    if not any(_is(n, "QuantizeLinear") or _is(n, "DequantizeLinear") or rule_for(n) for n in graph.nodes):
        return None
    return _Stripper(graph).run()


def _is(node: Node, op_type: str) -> bool:
    return node.op_type == op_type and node.domain in (*DEFAULT_DOMAINS, MICROSOFT)


class _Stripper:
    def __init__(self, graph: OnnxGraph):
        self.graph, self.constants = graph, graph.constants
        self.users = graph.users()
        self.nodes: list[Node] = []
        self.producer: dict[str, int] = {}  # tensor -> index in nodes
        self.codes: dict[str, tuple[str, Quant]] = {}  # tensor of codes -> the real tensor that stands for it
        self.alias: dict[str, str] = {}  # result of a DequantizeLinear -> the real tensor
        self.scales = ImportedScales()
        self.integer_inputs: list[str] = []
        self.integer_outputs: list[str] = []

    def run(self) -> QuantPlan:
        self._take_inputs()
        for node in self.graph.nodes:
            if _is(node, "QuantizeLinear"):
                self._quantize(node)
            elif _is(node, "DequantizeLinear"):
                self._dequantize(node)
            elif rule := rule_for(node):
                self._qoperator(node, rule)
            elif node.op_type in MOVES and node.domain in DEFAULT_DOMAINS and (quant := self._moved(node)):
                self._move(node, quant)
            else:
                self._emit(node.with_inputs(*map(self._read, node.inputs)))
        self._give_outputs()
        self.graph.nodes = self.nodes
        return QuantPlan(
            tensors=self.scales.tensors,
            integer_inputs=tuple(self.integer_inputs),
            integer_outputs=tuple(self.integer_outputs),
            method="imported",
        )

    # Model inputs and outputs

    def _take_inputs(self) -> None:
        """Inputs that are codes become float inputs, and integer again by the plan."""
        inputs: list[InputInfo] = []
        for info in self.graph.inputs:
            quant = self._declared(info.name) if info.dtype in ACTIVATION_DTYPES else None
            if quant is not None:
                info = replace(info, dtype="float32")
                self.integer_inputs.append(info.name)
                self._stands_for(info.name, info.name, quant)
            inputs.append(info)
        self.graph.inputs = inputs

    def _give_outputs(self) -> None:
        for name in self.graph.outputs:
            real = self.alias.get(name, name)
            if name in self.codes:
                real, quant = self.codes[name]
                self.integer_outputs.append(name)
                self.scales.activation(name, quant)
            if real != name:
                self._emit(Node("Identity", (real,), (name,), name))

    def _declared(self, name: str) -> Quant | None:
        """How all readers of a tensor of codes read it, None if they do not agree."""
        found: Quant | None = None
        for node in self.users.get(name, []):
            quant = self._read_by(node, name)
            if quant is None or (found is not None and not found.same(quant)):
                return None
            found = quant
        return None if name in self.graph.outputs else found

    def _read_by(self, node: Node, name: str) -> Quant | None:
        if _is(node, "DequantizeLinear"):
            return self._parameters(node, 1, None)
        if rule := rule_for(node):
            at = [i for i in rule.operands if node.inputs[i] == name]
            return self._parameters(node, at[0] + 1, None) if at else None
        if node.op_type in MOVES and node.inputs[0] == name:
            return self._declared(node.outputs[0])
        return None

    # Nodes

    def _quantize(self, node: Node) -> None:
        x, out = self._read(node.inputs[0]), node.outputs[0]
        quant = self._parameters(node, 1, None)
        if quant is None:
            self._emit(node.with_inputs(*map(self._read, node.inputs)))
        elif x in self.constants:
            self.constants[out] = quant.quantize(self.constants[x])
        else:
            self._restore_clip(x, quant)
            self._stands_for(out, x, quant)

    def _dequantize(self, node: Node) -> None:
        codes = self.constants.get(node.inputs[0])
        quant = self._parameters(node, 1, codes)
        if quant is None or not (codes is not None or node.inputs[0] in self.codes):
            self._emit(node.with_inputs(*map(self._read, node.inputs)))
        else:
            self.alias[node.outputs[0]] = self._real(node.inputs[0], quant)

    def _qoperator(self, node: Node, rule: QRule) -> None:
        if node.get("channels_last", 0):
            raise QCompileError("channels_last is not supported", node=node.label, remedy="quantize an NCHW model")
        quants = [self._operand(node, i) for i in rule.operands]
        inputs = [self._read(node.inputs[i]) for i in rule.plain]
        inputs += [self._real(node.inputs[i], q) for i, q in zip(rule.operands, quants, strict=True)]
        if rule.bias is not None and node.input(rule.bias):
            inputs.append(self._real(node.input(rule.bias), self._bias(node, quants)))
        hidden = ("channels_last", "opset")
        attributes = {key: value for key, value in node.attributes.items() if key not in hidden}
        self._emit(Node(rule.op_type, tuple(inputs), node.outputs, node.name, attributes))
        if node.input(rule.result):
            quant = self._parameters(node, rule.result, None)
            if quant is None:
                raise self._computed(node)
            self._restore_clip(node.outputs[0], quant, quantized_only=False)
            self._stands_for(node.outputs[0], node.outputs[0], quant)

    def _operand(self, node: Node, index: int) -> Quant:
        codes = self.constants.get(node.inputs[index])
        rank = codes.ndim if codes is not None else 2
        quant = self._parameters(node, index + 1, codes, axis=weight_axis(node, index, rank))
        if quant is None:
            raise self._computed(node)
        return quant

    def _computed(self, node: Node) -> QCompileError:
        return QCompileError(
            "its scale or zero point is computed from the data", node=node.label, remedy="quantize the model statically"
        )

    def _bias(self, node: Node, operands: Sequence[Quant]) -> Quant:
        """int32 codes in units of (scale of x) * (scale of w), along the output channels."""
        x, w = operands
        scale = (x.scale * w.scale * np.float32(node.get("alpha", 1.0))).astype(np.float32)
        return Quant(scale, np.zeros(scale.shape, np.int64), "int32", None if w.per_tensor else 0)

    def _moved(self, node: Node) -> Quant | None:
        """The one quantization of the codes that a data-moving operator reads, None if it reads something else."""
        data = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        if len(data) == 1 and data[0] in self.constants:
            codes = str(self.constants[data[0]].dtype) in ACTIVATION_DTYPES
            return self._declared(node.outputs[0]) if codes else None
        quants = [self.codes[n][1] for n in data if n in self.codes]
        if len(quants) < len(data) or not all(q.per_tensor and q.same(quants[0]) for q in quants):
            return None
        return quants[0]

    def _move(self, node: Node, quant: Quant) -> None:
        count = len(node.inputs) if node.op_type == "Concat" else 1
        reals = [self._real(name, quant) for name in node.inputs[:count]]
        self._emit(node.with_inputs(*reals, *map(self._read, node.inputs[count:])))
        for name in node.outputs[: None if node.op_type == "Split" else 1]:
            self._stands_for(name, name, quant)

    # Parts

    def _parameters(self, node: Node, at: int, codes: np.ndarray | None, axis: int | None = None) -> Quant | None:
        """Scale and zero point at inputs ``at`` and ``at + 1``; None if they are not constant."""
        scale, zero = self.constants.get(node.input(at)), self.constants.get(node.input(at + 1))
        if scale is None or (node.input(at + 1) and zero is None):
            return None
        dtype = str(zero.dtype if zero is not None else codes.dtype if codes is not None else "uint8")
        axis = int(node.get("axis", 1)) if axis is None else axis
        if codes is None and axis < 0 and scale.size > 1:
            return None  # the rank, and with it the axis, is not known here
        rank = max(codes.ndim if codes is not None else axis + 1, 1)
        return Quant.of(scale, zero, dtype, min(axis, rank - 1), rank, int(node.get("block_size", 0)))

    def _real(self, name: str, quant: Quant) -> str:
        """The real tensor for codes that are read as ``quant``."""
        if name in self.codes and self.codes[name][1].same(quant):
            return self.codes[name][0]
        real = self._fresh(f"{name}~real", quant)
        if name in self.constants:
            self.constants[real] = quant.dequantize(self.constants[name])
            self.scales.constants[real] = quant
        elif real not in self.producer:
            self._emit(Node("DequantizeLinear", (self._integers(name), *self._pair(real, quant)), (real,), real))
        return real

    def _fresh(self, name: str, quant: Quant) -> str:
        while name in self.scales.constants and not self.scales.constants[name].same(quant):
            name += "'"
        return name

    def _read(self, name: str) -> str:
        """What a node that stays reads for ``name``: real values behind a DequantizeLinear, else the codes."""
        return self.alias[name] if name in self.alias else self._integers(name)

    def _integers(self, name: str) -> str:
        """The codes themselves, computed for a reader that wants them."""
        if name not in self.codes:
            return name
        real, quant = self.codes[name]
        codes = f"{name}~codes"
        if codes not in self.producer:
            self._emit(Node("QuantizeLinear", (real, *self._pair(codes, quant)), (codes,), codes))
        return codes

    def _pair(self, name: str, quant: Quant) -> tuple[str, str]:
        scale, zero = f"{name}~scale", f"{name}~zero_point"
        self.constants[scale] = quant.scale.reshape(() if quant.per_tensor else quant.scale.shape)
        self.constants[zero] = quant.zero.astype(quant.dtype).reshape(self.constants[scale].shape)
        return scale, zero

    def _stands_for(self, codes: str, real: str, quant: Quant) -> None:
        self.codes[codes] = (real, quant)
        self.scales.activation(real, quant)

    def _restore_clip(self, name: str, quant: Quant, quantized_only: bool = True) -> None:
        """Bounds ``name`` as its quantization does, if that starts at 0 and the producer's range does not."""
        at = self.producer.get(name)
        if at is None or not quant.per_tensor or int(quant.zero[0]) != quant.limits[0]:
            return
        node = self.nodes[at]
        others = [u for u in self.users.get(name, []) if not _is(u, "QuantizeLinear")]
        if node.op_type not in RANGES or (quantized_only and (others or name in self.graph.outputs)):
            return
        if node.op_type in ("Add", "Sum") and all(self.scales.starts_at_zero(n) for n in node.inputs):
            return
        linear, bounds = f"{name}~linear", (f"{name}~min", f"{name}~max")
        for bound, value in zip(bounds, quant.real_limits, strict=True):
            self.constants[bound] = np.asarray(value, np.float32)
        self.nodes[at] = replace(node, outputs=(linear, *node.outputs[1:]))
        self.producer[linear] = at
        self.scales.rename_layer(name, linear)
        self._append(Node("Clip", (linear, *bounds), (name,), node.name))

    def _emit(self, node: Node) -> None:
        self._append(node)
        self.scales.layer(node)

    def _append(self, node: Node) -> None:
        for name in node.outputs:
            self.producer[name] = len(self.nodes)
        self.nodes.append(node)
