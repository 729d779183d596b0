"""What ONNX's and ONNX Runtime's quantized operators (QOperator format) are in terms of float operators.

Each of their tensors comes as a triple (codes, scale, zero point); a rule says where the triples stand.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.frontend.onnx_graph import MICROSOFT, Node


@dataclass(frozen=True, slots=True)
class QRule:
    """Positions are those of inputs.

    op_type: the float operator. operands: where triples start. result: scale of the output, its zero point follows.
    plain: inputs that are no codes. bias: int32 codes whose scale is the product of those of both operands.
    """

    op_type: str
    operands: tuple[int, ...]
    result: int
    plain: tuple[int, ...] = ()
    bias: int | None = None


_BINARY = (0, 3)
RULES: dict[tuple[str, str], QRule] = {
    ("", "QLinearConv"): QRule("Conv", _BINARY, 6, bias=8),
    ("", "QLinearMatMul"): QRule("MatMul", _BINARY, 6),
    (MICROSOFT, "QGemm"): QRule("Gemm", _BINARY, 7, bias=6),
    (MICROSOFT, "QLinearAdd"): QRule("Add", _BINARY, 6),
    (MICROSOFT, "QLinearMul"): QRule("Mul", _BINARY, 6),
    (MICROSOFT, "QLinearAveragePool"): QRule("AveragePool", (0,), 3),
    (MICROSOFT, "QLinearGlobalAveragePool"): QRule("GlobalAveragePool", (0,), 3),
    (MICROSOFT, "QLinearSigmoid"): QRule("Sigmoid", (0,), 3),
    (MICROSOFT, "QLinearLeakyRelu"): QRule("LeakyRelu", (0,), 3),
    (MICROSOFT, "QLinearSoftmax"): QRule("Softmax", (0,), 3),
    (MICROSOFT, "QLinearReduceMean"): QRule("ReduceMean", (0,), 3),
    (MICROSOFT, "QLinearWhere"): QRule("Where", (1, 4), 7, plain=(0,)),
}


def rule_for(node: Node) -> QRule | None:
    """The rule of a quantized operator, None for any other node."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (domain, node.op_type) == (MICROSOFT, "QLinearConcat"):
        return QRule("Concat", tuple(range(2, len(node.inputs), 3)), 0)
    return RULES.get((domain, node.op_type))


def weight_axis(node: Node, operand: int, rank: int) -> int:
    """Axis of an operand that several scales run along."""
    if node.op_type == "QLinearConv":
        return 0
    if node.op_type == "QGemm" and operand == 3:
        return 0 if node.get("transB", 0) else 1
    return rank - 1 if operand == 3 else rank - 2
