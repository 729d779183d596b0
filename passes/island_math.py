"""What float islands are made of, as tensor expressions: elementwise functions, softmax."""

from __future__ import annotations

from collections.abc import Callable

from tvm import te, topi
from tvm.ir import Expr

from qcompile.targets.kernels.float_functions import exp_scalar


def elementwise(scalar: Callable[[Expr], Expr]) -> Callable[[te.Tensor], te.Tensor]:
    """A function of tensors from one of scalars."""
    return lambda x: te.compute(x.shape, lambda *index: scalar(x(*index)), name=scalar.__name__.removesuffix("_scalar"))


def softmax(x: te.Tensor, axis: int) -> te.Tensor:
    """Four steps over ``axis``: maximum, exponential of the difference, sum, quotient."""
    largest = topi.max(x, axis, keepdims=True)
    powers = elementwise(exp_scalar)(topi.subtract(x, largest))
    total = topi.sum(powers, axis, keepdims=True)
    return topi.divide(powers, total)
