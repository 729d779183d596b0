"""Operators that no layer's kernel takes, as GPU kernels: emulated, near the oracle, in as few launches as can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from tvm import relax, te, tirx
from tvm.ir import IRModule

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.passes.base import dtype_of, shape_of
from qcompile.passes.cuda_memory import Kernels
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.reference import interpreter
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import templates
from tests.passes.float_modules import const, module, weight
from tests.passes.quantized_modules import feeds_of, integer_of

op = relax.op


def positions(*values: int) -> relax.Expr:
    return relax.const(np.array(values), "int64")


def one(make: Callable[[relax.Var], relax.Expr]) -> Callable[..., Sequence[relax.Expr]]:
    """A graph of one operator."""
    return lambda b, x: [b.emit(make(x), "y")]


def attention(b, x):
    q = b.emit(op.reshape(x, (2, 20, 4, 9)), "q")
    k, v = b.emit(op.permute_dims(q, [0, 2, 3, 1]), "k"), b.emit(op.permute_dims(q, [0, 2, 1, 3]), "v")
    scores = b.emit(op.multiply(b.emit(op.matmul(v, k), "qk"), const(0.3)), "scaled")
    masked = b.emit(op.add(scores, weight(20, 20)), "masked")
    return [b.emit(op.matmul(b.emit(op.nn.softmax(masked, axis=-1), "p"), v), "y")]


def normalized(b, x):
    total = b.emit(op.add(x, x), "total")
    return [b.emit(op.nn.layer_norm(total, weight(70), weight(70, seed=1), axes=[-1]), "y"), total]


def chosen(b, x):
    large = b.emit(op.logical_and(b.emit(op.greater(x, const(0.2)), "g"), b.emit(op.isfinite(x), "f")), "l")
    picked = b.emit(op.where(large, b.emit(op.exp(x), "e"), const(-5.0)), "y")
    return [picked, b.emit(op.astype(large, "int64"), "n"), b.emit(op.floor_mod(x, const(0.7)), "m")]


def integers(b, x):
    n = b.emit(op.astype(b.emit(op.multiply(x, const(10.0)), "ten"), "int32"), "n")
    three = relax.const(np.int32(-3), "int32")
    parts = [op.floor_divide(n, three), op.floor_mod(n, three), op.bitwise_and(n, three), op.maximum(n, three)]
    parts += [op.left_shift(n, relax.const(np.int32(2), "int32")), op.abs(n), op.equal(n, three), op.sum(n, 0)]
    return [b.emit(part, f"y{i}") for i, part in enumerate(parts)]


def sorted_(b, x):
    top = b.emit(op.topk(x, 3), "t")
    parts = [b.emit(relax.TupleGetItem(top, i), f"t{i}") for i in range(2)]
    sums = [b.emit(op.cumsum(x, 1), "cs"), b.emit(op.cumprod(x, 0, exclusive=True), "cp")]
    return [*parts, b.emit(op.sort(x, axis=0), "s"), b.emit(op.argsort(x, axis=0), "as"), *sums]


def extremes(b, x):
    along = [b.emit(op.argmax(x, -1), "a"), b.emit(op.argmin(x, 0, True), "b")]
    return [*along, b.emit(op.argmax(x), "c"), b.emit(op.max(x, 1, True), "d")]


def statistics(b, x):
    return [b.emit(op.sum(x), "a"), b.emit(op.mean(x, [0]), "b"), b.emit(op.std(x, [1]), "c"), b.emit(op.prod(x), "d")]


def scattered(b, x):
    rows = relax.const(np.array([[0, 0, 2, 3, 4, 3, 2, 1, 0]]), "int64")
    return [b.emit(op.scatter_elements(x, rows, weight(1, 9), 0, how), how) for how in ("update", "add")]


def moved(b, x):
    read = [b.emit(op.take(x, positions(3, 0, 1), axis=0), "t"), b.emit(op.tile(x, (2, 2)), "ti")]
    return [*read, b.emit(op.flip(x, 0), "f"), b.emit(op.tril(x), "tr"), b.emit(op.broadcast_to(x, (3, 5, 9)), "br")]


def wide(b, x):
    """Four neighbours of 8 bytes are more than a word."""
    double = b.emit(op.astype(x, "float64"), "f")
    return [b.emit(op.multiply(double, relax.const(0.1, "float64")), "y"), b.emit(op.astype(x, "int64"), "i")]


def narrow(b, x):
    half = b.emit(op.astype(x, "float16"), "h")
    return [b.emit(op.add(half, half), "y"), b.emit(op.astype(b.emit(op.astype(x, "bfloat16"), "n"), "float32"), "z")]


def bare(b, x):
    return [const(np.ones((2, 3))), x, b.emit(op.nn.relu(x), "y"), b.emit(op.reshape(x, (9, 5)), "z")]


@dataclass(frozen=True)
class Case:
    """A graph of an input of this shape; kernels: what it is lowered to, if that is to be looked at."""

    write: Callable[..., Sequence[relax.Expr]]
    shape: tuple[int, ...]
    kernels: tuple[str, ...] = ()


CASES = {
    "softmax": Case(one(lambda x: op.nn.softmax(x, axis=-1)), (2, 3, 40), ("softmax",)),
    "softmax over channels": Case(one(lambda x: op.nn.softmax(x, axis=1)), (2, 7, 5, 6), ("softmax",)),
    "normalization": Case(normalized, (5, 70), ("add", "layer_norm")),
    "attention": Case(attention, (2, 20, 36), ("fused_matmul_multiply_add", "softmax", "matmul")),
    "matrix product": Case(one(lambda x: op.matmul(x, weight(1, 75, 37))), (2, 50, 75), ("matmul",)),
    "matrix and vector": Case(one(lambda x: op.matmul(x, weight(75, 1))), (2, 5, 75), ("matmul",)),
    "convolution of volumes": Case(one(lambda x: op.nn.conv3d(x, weight(9, 3, 3, 3, 3), padding=1)), (1, 3, 3, 9, 9)),
    "groups": Case(one(lambda x: op.nn.group_norm(x, weight(8), weight(8), 4, 1, [2, 3])), (2, 8, 7, 5)),
    "statistics": Case(statistics, (33, 70), ("sum", "mean", "std", "prod")),
    "extremes": Case(extremes, (5, 70), ("argmax", "argmin", "argmax", "max")),
    "conditions": Case(chosen, (5, 9)),
    "integers": Case(integers, (5, 9)),
    "sorts and scans": Case(sorted_, (5, 9)),
    "movement": Case(moved, (5, 9)),
    "scatters": Case(scattered, (5, 9)),
    "resizes": Case(one(lambda x: op.image.resize2d(x, (9, 11), method="cubic")), (1, 3, 5, 6), ("resize2d",)),
    "narrow floats": Case(narrow, (5, 9)),
    "wide numbers": Case(wide, (3, 8)),
    "no operator": Case(bare, (5, 9)),
}


@pytest.fixture(scope="module")
def lowered():
    """All at once, since a C++ compiler takes its time: name -> (form, program, notes); and the emulation."""
    kernels = Kernels()
    forms = {name: module(case.write, x=case.shape) for name, case in CASES.items()}
    programs = {name: lower_cuda(form, kernels) for name, form in forms.items()}
    return forms, programs, Emulated(templates() + kernels.text, optimize=0)


def assert_near_oracle(form: IRModule, program, emulated: Emulated, tolerance: float = 1e-5) -> None:
    main, feeds = graph.read(form), feeds_of(form)
    results = []
    for order in range(3):
        results.append([np.zeros(shape_of(output), dtype_of(output)) for output in main.outputs])
        emulated.run(program, list(feeds.values()), results[-1], order)
    for got, *again, (name, want) in zip(*results, interpreter.run(form, feeds).items(), strict=True):
        for other in again:
            np.testing.assert_array_equal(got, other)
        if got.dtype.kind != "f":
            np.testing.assert_array_equal(got, want, err_msg=name)
        else:
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max(), err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_functions_are_near_the_oracle(lowered, name):
    forms, programs, emulated = lowered
    program, notes = programs[name]
    assert CASES[name].kernels in ((), tuple(note.op for note in notes))
    assert_near_oracle(forms[name], program, emulated)


def test_large_products_are_tiled_and_long_rows_shared(lowered):
    notes = {name: notes[-1].note for name, (_, notes) in lowered[1].items()}
    assert notes["matrix product"].startswith("tiles")
    assert notes["softmax"] == notes["matrix and vector"] == "4 rows x 32 threads"
    assert notes["softmax over channels"].startswith("32 rows")  # neighbouring pixels side by side


def test_quantization_is_part_of_what_it_follows_and_precedes():
    def write(b, x):
        normal = b.emit(op.nn.layer_norm(x, weight(32), weight(32, seed=1), axes=[-1]), "n")
        wide = b.emit(op.matmul(normal, weight(32, 48)), "w")
        return [b.emit(op.nn.softmax(b.emit(op.divide(wide, const(3.0)), "d"), axis=-1), "y")]

    form = integer_of(module(write, x=(2, 6, 32)))
    program, notes = lower_cuda(form)
    assert [note.op for note in notes][:2] == ["fused_layer_norm_quantize", "dense"]
    assert_near_oracle(form, program, Emulated(program.source, optimize=0))


def test_codes_are_the_oracle_s_to_the_bit():
    """NaN and infinity among what is quantized, a scale for each channel."""
    scales, zeros = np.array([0.5, 0.01, 1.0], np.float32), np.array([3, 128, 0], np.uint8)

    def write(b, x):
        each = b.emit(op.quantize(x, relax.const(scales), relax.const(zeros), 1, "uint8"), "e")
        return [each, b.emit(op.dequantize(each, relax.const(scales), relax.const(zeros), 1), "d")]

    form = module(write, x=(2, 3, 5))
    program, _ = lower_cuda(form)
    x = feeds_of(form)["x"]
    x[0, 0] = (np.nan, np.inf, -np.inf, 1e30, 0.25)
    got = [np.zeros(x.shape, np.uint8), np.zeros(x.shape, np.float32)]
    Emulated(program.source, optimize=0).run(program, [x], got)
    for value, want in zip(got, interpreter.run(form, {"x": x}).values(), strict=True):
        np.testing.assert_array_equal(value, want)


def test_what_has_no_text_is_refused_by_name():
    x = te.placeholder((4,), "int32", "x")
    function = te.create_prim_func([x, te.compute((4,), lambda i: tirx.popcount(x(i)))])
    builder = graph.MainBuilder([relax.Var("x", relax.TensorType((4,), "int32"))])
    call = relax.call_tir(builder.add_function(function, "count"), builder.params, relax.TensorType((4,), "int32"))
    with pytest.raises(QCompileError, match="^y: no CUDA text for popcount of int32; build the model for a CPU"):
        lower_cuda(builder.module([builder.emit(call, "y")]))


def test_what_depends_on_values_is_refused_by_name():
    with pytest.raises(QCompileError, match="^y: the shape of its result is not static.*; fix input shapes"):
        lower_cuda(module(one(op.nonzero), x=(4, 8)))
