"""Float functions of one number that LLVM can vectorize: exp, erf, tanh, sigmoid and what is made of them.

TVM lowers ``exp`` and ``erf`` to scalar calls of libm; these are polynomials, accurate to some units of the last place.
Arguments are clamped: ``exp(-inf)`` is 1.2e-38, ``exp(inf)`` 2.4e38, and NaN becomes a number. Islands promise float
tolerance, not IEEE's special values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, sqrt

from tvm import tirx
from tvm.ir import Expr

_EXP_LOW, _EXP_HIGH = -87.33654, 88.37  # so that n is in [-126, 127]: results from 1.2e-38 to 2.4e38
_LN2_HIGH = 0.693359375  # 9 bits: its product with an exponent is exact
_LN2_LOW = log(2) - _LN2_HIGH
_EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)  # Cephes expf

# Rational approximations of Eigen, in powers of x^2, highest first: x * numerator / denominator.
_ERF_LIMIT = 4.0
_ERF_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_TANH_LIMIT = 7.90531110763549805
_TANH_NUMERATOR = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_DENOMINATOR = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def _f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def _let(value: Expr, body: Callable[[Expr], Expr], dtype: str = "float32") -> Expr:
    """``body`` of a value that is computed once, however often it is read."""
    name = tirx.Var("v", dtype)
    return tirx.Let(name, value, body(name))


def _clamp(value: Expr, low: float, high: float) -> Expr:
    return tirx.Max(tirx.Min(value, _f32(high)), _f32(low))


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    result = _f32(coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + _f32(coefficient)
    return result


def exp_scalar(x: Expr) -> Expr:
    """``2^n * e^r``, n the nearest integer to x / ln 2."""

    def with_exponent(clamped: Expr, n: Expr) -> Expr:
        power = tirx.reinterpret("float32", (tirx.Cast("int32", n) + 127) << 23)
        reduced = clamped - n * _f32(_LN2_HIGH) - n * _f32(_LN2_LOW)
        return _let(reduced, lambda r: (_horner(r, _EXP) * r * r + r + _f32(1)) * power)

    def of(clamped: Expr) -> Expr:
        return _let(tirx.floor(clamped * _f32(1 / log(2)) + _f32(0.5)), lambda n: with_exponent(clamped, n))

    return _let(_clamp(x, _EXP_LOW, _EXP_HIGH), of)


def _odd_rational(x: Expr, limit: float, numerator: Sequence[float], denominator: Sequence[float]) -> Expr:
    def of(clamped: Expr) -> Expr:
        return _let(clamped * clamped, lambda s: clamped * _horner(s, numerator) / _horner(s, denominator))

    return _let(_clamp(x, -limit, limit), of)


def erf_scalar(x: Expr) -> Expr:
    return _odd_rational(x, _ERF_LIMIT, _ERF_NUMERATOR, _ERF_DENOMINATOR)


def tanh_scalar(x: Expr) -> Expr:
    return _odd_rational(x, _TANH_LIMIT, _TANH_NUMERATOR, _TANH_DENOMINATOR)


def sigmoid_scalar(x: Expr) -> Expr:
    return _f32(1) / (_f32(1) + exp_scalar(-x))


def gelu_scalar(x: Expr) -> Expr:
    return x * (_f32(0.5) + _f32(0.5) * erf_scalar(x * _f32(1 / sqrt(2))))


def silu_scalar(x: Expr) -> Expr:
    return x * sigmoid_scalar(x)


FUNCTIONS = {  # by Relax's name of the operator
    "exp": exp_scalar,
    "erf": erf_scalar,
    "tanh": tanh_scalar,
    "sigmoid": sigmoid_scalar,
    "nn.gelu": gelu_scalar,
    "nn.silu": silu_scalar,
}
