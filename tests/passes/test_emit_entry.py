"""Entry functions of small integer forms: where results are written, what is stored, and that they compute."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.ir import GlobalVar, IRModule

from qcompile import graph
from qcompile.compile import compile_entry
from qcompile.errors import QCompileError
from qcompile.passes.emit_entry import PROFILE, Entry, emit_entry
from qcompile.passes.pipeline import lowering_passes, run_passes
from qcompile.reference import interpreter
from qcompile.targets.storage import SLACK
from tests.passes.float_modules import const, module, values, weight
from tests.passes.quantized_modules import feeds_of, integer_of
from tests.targets.running import AVX2

op = relax.op


def conv(b, x, name="y", seed=0):
    weights = weight(16, int(x.ty.shape[1]), 3, 3, seed=seed)
    return b.emit(op.nn.conv2d(x, weights, padding=(1, 1)), name)


def entry_of(form: IRModule) -> Entry:
    return emit_entry(run_passes(form, lowering_passes(AVX2)))


def call(entry: Entry, form: IRModule, feeds, stamps=None) -> list[np.ndarray]:
    """Runs it with a workspace and results full of NaN."""
    main = form[graph.MAIN]
    results = [np.full(tuple(map(int, t.shape)), 255, np.uint8 if str(t.dtype) == "uint8" else np.float32)
               for t in main.ret_ty.fields]  # fmt: skip
    tensors = [tvm.runtime.tensor(r) for r in results]
    extra = [] if stamps is None else [stamps]
    library = compile_entry(entry, AVX2)
    library["main" if stamps is None else PROFILE](
        *(tvm.runtime.tensor(feeds[p.name]) for p in main.params), *tensors,
        tvm.runtime.tensor(entry.weights), tvm.runtime.tensor(np.full(entry.workspace, 255, np.uint8)), *extra,
    )  # fmt: skip
    return [t.numpy() for t in tensors]


def check(form: IRModule) -> Entry:
    entry, feeds = entry_of(form), feeds_of(form)
    want = interpreter.run(form, feeds)
    for i, (output, got) in enumerate(zip(graph.read(form).outputs, call(entry, form, feeds), strict=True)):
        np.testing.assert_array_equal(got, want[getattr(output, "name", f"output{i}")])
    return entry


def steps(entry: Entry) -> list[str]:
    return [step.output for step in entry.steps]


def test_the_last_kernel_writes_into_the_callers_array():
    entry = check(integer_of(module(lambda b, x: [conv(b, x)], x=(1, 4, 5, 5))))
    assert not any(name.endswith("~copy") for name in steps(entry))
    assert entry.workspace < 3000  # quantized x, y in blocks; no third buffer for the result


def test_several_outputs():
    def write(b, x):
        first = conv(b, x, "a")
        return [conv(b, first, "y", 1), b.emit(op.nn.max_pool2d(first, (2, 2)), "z")]

    entry = check(integer_of(module(write, x=(1, 4, 6, 6))))
    assert not any(name.endswith("~copy") for name in steps(entry))


def test_an_output_returned_twice_is_copied_once():
    def write(b, x):
        y = conv(b, x)
        return [y, y]

    assert [name for name in steps(check(integer_of(module(write, x=(1, 4, 5, 5))))) if "~copy" in name] == ["y~copy"]


def test_an_output_that_is_an_input():
    def write(b, x):
        return [conv(b, x), x]

    assert steps(check(integer_of(module(write, x=(1, 4, 5, 5)))))[-1] == "x~copy"


def test_an_output_that_is_a_constant():
    def write(b, x):
        return [conv(b, x), const(values(3, 2))]

    form = integer_of(module(write, x=(1, 4, 5, 5)))
    assert steps(check(form))[-1] == "output1~copy"


def test_a_reshaped_output_is_the_same_memory():
    def write(b, x):
        return [b.emit(op.reshape(conv(b, x, "c"), (16, 25)), "y")]

    assert not any("~copy" in name for name in steps(check(integer_of(module(write, x=(1, 4, 5, 5))))))


def test_a_result_that_a_later_kernel_reads():
    """The caller's array serves as an operand, too."""

    def write(b, x):
        c = b.emit(op.nn.relu(b.emit(op.matmul(x, weight(6, 6)), "m")), "c")
        return [c, b.emit(op.matmul(c, weight(6, 3, seed=1)), "y")]

    check(integer_of(module(write, x=(2, 6)), integer_outputs=["c"]))


def test_workspace_is_shared_between_distant_steps():
    """Eight layers in a row need no more than two tensors of room at a time."""

    def write(layers):
        def chain(b, x):
            for i in range(layers):
                x = conv(b, x, f"c{i}", i)
            return [b.emit(op.mean(x, [2, 3]), "y")]

        return chain

    sizes = [entry_of(integer_of(module(write(n), x=(1, 16, 8, 8)))).workspace for n in (2, 8)]
    assert sizes[0] == sizes[1]


def test_equal_constants_are_stored_once():
    def write(seeds):
        def chain(b, x):
            return [conv(b, x, f"y{i}", seed) for i, seed in enumerate(seeds)]

        return chain

    once, twice, other = (entry_of(integer_of(module(write(s), x=(1, 16, 4, 4)))) for s in ((0,), (0, 0), (0, 1)))
    assert twice.weights.size == once.weights.size < other.weights.size - 16 * 16 * 9
    assert not once.weights[-SLACK:].any()


def test_the_profile_entry_stamps_every_step():
    form = integer_of(module(lambda b, x: [conv(b, conv(b, x, "c"))], x=(1, 4, 5, 5)))
    entry, feeds = entry_of(form), feeds_of(form)
    stamps = tvm.runtime.tensor(np.zeros(len(entry.steps) + 1, np.int64))
    (got,) = call(entry, form, feeds, stamps)
    np.testing.assert_array_equal(got, *interpreter.run(form, feeds).values())
    assert (np.diff(stamps.numpy()) > 0).all()
    assert {step.kernel for step in entry.steps} <= {g.name_hint for g in entry.module.functions}


def test_a_network_of_one_constant():
    def write(b, x):
        return [const(values(2, 3))]

    form = module(write, x=(1,))
    (got,) = call(entry_of(form), form, {"x": np.zeros(1, np.float32)})
    np.testing.assert_array_equal(got, values(2, 3))


def test_what_has_no_kernel_is_named():
    mod = module(lambda b, x: [b.emit(op.cumsum(x, 0), "y")], x=(3,))
    with pytest.raises(QCompileError, match=r"^y: operator cumsum has no static kernel"):
        emit_entry(mod)


def test_private_kernels_take_bare_pointers():
    entry = entry_of(integer_of(module(lambda b, x: [conv(b, x)], x=(1, 4, 5, 5))))
    public = {g.name_hint for g, f in entry.module.functions_items() if f.attrs and "global_symbol" in f.attrs}
    assert public == {"main", PROFILE}
    assert all(isinstance(g, GlobalVar) for g in entry.module.functions)
