"""``NodeContext``: one ONNX node on its way into Relax, as converters see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from tvm import relax

from qcompile.errors import QCompileError
from qcompile.frontend.emit import Emitter
from qcompile.frontend.onnx_graph import Node

Value: TypeAlias = "np.ndarray | relax.Expr"  # a constant, or a variable of main
Result: TypeAlias = "Value | list[Value]"  # several: one for each output


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Inputs are numpy arrays where they are constant, variables elsewhere, None where absent.

    ``wanted`` tells of each output whether anything reads it.
    """

    node: Node
    inputs: tuple[Value | None, ...]
    wanted: tuple[bool, ...]
    opset: int
    emit: Emitter
    as_expr: Callable[[Value], relax.Expr]

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> relax.Expr:
        """Input as a Relax expression."""
        return self.as_expr(self.value(index))

    def constant(self, index: int, what: str) -> np.ndarray:
        """Input as a constant. An absent or run-time value is an error that calls it ``what``."""
        value = self.optional_constant(index, what)
        if value is None:
            raise self.fail(f"its {what} is missing", "mend or re-export the model")
        return value

    def optional_constant(self, index: int, what: str) -> np.ndarray | None:
        value = self.inputs[index] if self.has(index) else None
        if value is None or isinstance(value, np.ndarray):
            return value
        raise self.fail(
            f"its {what} ({self.node.input(index)}) is computed from the data",
            "qcompile needs static shapes: make it a constant, or cut the model before this node",
        )

    def ints(self, index: int, attribute: str, what: str) -> list[int]:
        """A list of integers that older opsets give as an attribute and newer ones as an input."""
        value = self.optional_ints(index, attribute, what)
        if value is None:
            raise self.fail(f"its {what} is missing", "mend or re-export the model")
        return value

    def optional_ints(self, index: int, attribute: str, what: str) -> list[int] | None:
        if self.node.get(attribute) is not None:
            return [int(i) for i in self.node.get(attribute)]
        value = self.optional_constant(index, what)
        return None if value is None else [int(i) for i in value.reshape(-1)]

    def value(self, index: int) -> Value:
        """Input as it is: a numpy array or a variable."""
        value = self.inputs[index] if self.has(index) else None
        if value is None:
            raise self.fail(f"input {index} is missing", "mend or re-export the model")
        return value

    def shape(self, index: int = 0) -> tuple[int, ...]:
        value = self.value(index)
        return value.shape if isinstance(value, np.ndarray) else tuple(int(d) for d in value.ty.shape.values)

    def dtype(self, index: int = 0) -> str:
        value = self.value(index)
        return str(value.dtype if isinstance(value, np.ndarray) else value.ty.dtype)

    def is_float(self, index: int = 0) -> bool:
        return "float" in self.dtype(index)

    def axis(self, default: int, rank: int | None = None) -> int:
        """The ``axis`` attribute, counted from the front."""
        rank = len(self.shape()) if rank is None else rank
        axis = self.node.get("axis", default)
        if not -rank <= axis < max(rank, 1):
            raise self.fail(f"axis {axis} is out of range for {rank} dimensions", "mend or re-export the model")
        return axis % max(rank, 1)

    def get(self, attribute: str, default: Any = None) -> Any:
        return self.node.get(attribute, default)

    def scalar(self, value: float, index: int = 0) -> relax.Expr:
        """A constant of the dtype of an input."""
        return relax.const(value, self.dtype(index))

    def with_inputs(self, *inputs: Value | None) -> NodeContext:
        return replace(self, inputs=inputs)

    def fail(self, reason: str, remedy: str) -> QCompileError:
        return QCompileError(reason, node=self.node.label, remedy=remedy)

    def unsupported(self, what: str) -> QCompileError:
        return self.fail(f"{what} is not supported", "cut the model before this node, or export it without")
