from __future__ import annotations

import subprocess
import sys

import pytest
from tvm.ir import IRModule
from tvm.script.ir_builder import tirx as T

from qcompile.errors import QCompileError
from qcompile.passes.runtime_calls import check_runtime_calls, runtime_calls
from qcompile.targets.kernels.builder import kernel


def calling(*names: str):
    """A kernel that calls functions of the runtime."""

    def body(x) -> None:
        for name in names:
            T.evaluate(T.call_packed(name, x[0]))

    return kernel("k", [("x", "float32", 4)], body)


def test_calls_are_found_once_each():
    assert runtime_calls(calling()) == ()
    sort, topk = "tvm.contrib.sort.sort", "tvm.contrib.sort.topk"
    assert runtime_calls(calling(topk, sort, topk)) == (topk, sort)


def test_a_kernel_that_calls_the_runtime_is_refused():
    check_runtime_calls(IRModule({"a": calling(), "b": calling()}))
    with pytest.raises(QCompileError, match=r"calling 'tvm\.contrib\.sort\.topk' of its runtime, which is not there"):
        check_runtime_calls(IRModule({"a": calling(), "k": calling("tvm.contrib.sort.topk")}))


FAILS = """
import numpy as np, tvm
from qcompile.compile import runnable
from qcompile.targets.select import select_target
from tvm import relax
from tvm.script.ir_builder import tirx as T
from qcompile.graph import MainBuilder
from qcompile.targets.kernels.builder import kernel

def body(x, y):
    T.evaluate(T.call_packed("a.function.that.is.nowhere", x[0]))

params = [relax.Var("x", relax.TensorType((4,), "float32"))]
b = MainBuilder(params)
gvar = b.add_function(kernel("k", [("x", "float32", 4), ("y", "float32", 4)], body), "broken")
y = b.emit(relax.call_tir(gvar, params, relax.TensorType((4,), "float32")), "y")
runnable(b.module([y]), select_target("x86-avx2"))({"x": np.zeros(4, np.float32)})
"""


def test_a_call_that_fails_is_an_error_and_no_garbage():
    done = subprocess.run([sys.executable, "-c", FAILS], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "broken_0 failed" in done.stderr
