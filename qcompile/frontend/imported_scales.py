"""``ImportedScales``: the plan entries that a quantized ONNX model gives, as they are found."""

from __future__ import annotations

from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, Node
from qcompile.frontend.quant_params import ACTIVATION_DTYPES, Quant
from qcompile.plan import TensorPlan

WHY = "scale of the imported model"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
PARTS = (("weight", 1, "alpha"), ("bias", 2, "beta"))  # name, input, factor of Gemm


class ImportedScales:
    """tensors: name -> entry, as in ``QuantPlan``. constants: dequantized constant -> how it was quantized."""

    def __init__(self) -> None:
        self.tensors: dict[str, TensorPlan] = {}
        self.constants: dict[str, Quant] = {}

    def activation(self, name: str, quant: Quant) -> None:
        """Notes the first 8-bit per-tensor quantization of a tensor; a plan has no words for others."""
        entry = quant.to_plan(WHY)
        if entry and quant.per_tensor and quant.dtype in ACTIVATION_DTYPES and name not in self.tensors:
            self.tensors[name] = entry

    def layer(self, node: Node) -> None:
        """Notes weight and bias of a float node, in the form that they have after import."""
        if node.op_type not in WEIGHTED or node.domain not in DEFAULT_DOMAINS:
            return
        for part, index, factor in PARTS:
            quant = self.constants.get(node.input(index))
            if quant is None:
                continue
            if node.op_type == "Gemm":  # the importer transposes B and multiplies by alpha and beta
                quant = quant.times(node.get(factor, 1.0))
                if part == "weight" and node.get("transB", 0) and quant.axis is not None:
                    quant = quant.along(1 - quant.axis)
            entry = (quant.as_weight() if part == "weight" else quant).to_plan(WHY)
            if entry is not None:
                self.tensors[f"{node.outputs[0]}.{part}"] = entry

    def rename_layer(self, old: str, new: str) -> None:
        """Weight and bias of the layer whose output was called ``old``."""
        for part, _, _ in PARTS:
            if f"{old}.{part}" in self.tensors:
                self.tensors[f"{new}.{part}"] = self.tensors.pop(f"{old}.{part}")

    def starts_at_zero(self, name: str) -> bool:
        """Whether the codes of a tensor can hold no negative value."""
        plan = self.tensors.get(name)
        return plan is not None and plan.affine.zero_point == plan.affine.qmin
