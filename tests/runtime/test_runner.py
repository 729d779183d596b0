"""Loading and running, with a library made by hand."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

import qcompile as qc
from qcompile.runtime import features
from tests.runtime import handmade

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the handmade library is for x86-64")
X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
EXPECTED = X + handmade.WEIGHTS


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return handmade.build(tmp_path_factory.mktemp("built") / "out").path


@pytest.fixture(scope="module")
def runner(built):
    return qc.load(built)


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(qc.QCompileError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_run_returns_fresh_arrays_by_name(runner):
    first = runner.run({"x": X})
    second = runner.run({"x": X + 1})
    assert list(first) == ["y"]
    np.testing.assert_array_equal(first["y"], EXPECTED)
    np.testing.assert_array_equal(second["y"], X + 1 + handmade.WEIGHTS)


def test_views_are_overwritten_by_the_next_run(runner):
    view = runner.run({"x": X}, copy=False)["y"]
    runner.run({"x": X + 1})
    np.testing.assert_array_equal(view, X + 1 + handmade.WEIGHTS)


def test_input_may_have_any_strides(runner):
    np.testing.assert_array_equal(runner.run({"x": np.repeat(X, 2, axis=1)[:, ::2]})["y"], EXPECTED)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"X": X}, "the model has no input 'X'; (one of: x)"),
        ({"xx": X}, "the model has no input 'xx'; did you mean 'x'? (one of: x)"),
        ({"x": X, "z": X}, "the model has no input 'z'; (one of: x)"),
        ({}, "no value for input 'x'; give float32 of shape (1, 64)"),
        ({"x": X[0]}, "input x: shape (64,), the model has (1, 64)"),
        (
            {"x": X.astype(np.float64)},
            "input x: dtype float64, the model has float32; convert it: array.astype('float32')",
        ),
    ],
)
def test_refuses_a_feed_that_does_not_fit(runner, feed, message):
    assert refusal(runner.run, feed) == message


def test_bound_arrays_are_used_in_place(runner):
    x, y = qc.aligned_empty((1, 64), "float32"), qc.aligned_empty((1, 64), "float32")
    binding = runner.bind(inputs={"x": x}, outputs={"y": y})
    x[...] = X
    binding()
    np.testing.assert_array_equal(y, EXPECTED)
    assert binding.inputs["x"] is x and binding.outputs["y"] is y


def test_refuses_to_bind_what_it_cannot_use_in_place(runner):
    unaligned = np.empty(65, np.float32)
    unaligned = unaligned[1:] if unaligned.ctypes.data % 64 == 0 else unaligned[:64]
    assert refusal(runner.bind, {"x": unaligned.reshape(1, 64)}) == (
        "input x: not a writable C-contiguous array on a 64-byte boundary; allocate it with qcompile.aligned_empty"
    )
    assert refusal(runner.bind, None, {"z": X}) == "the model has no output 'z'; (one of: y)"


def test_threads_of_the_caller_take_turns(runner):
    wrong = []

    def work(k: int) -> None:
        x = np.full((1, 64), k, np.float32)
        wrong.extend(i for i in range(300) if not np.array_equal(runner.run({"x": x})["y"], x + handmade.WEIGHTS))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_profile_names_every_kernel(runner):
    profile = runner.profile({"x": X}, seconds=0.01)
    assert [(k.kernel, k.layer) for k in profile.kernels] == [("copy", ""), ("add_0", "add")]
    assert all(k.microseconds > 0 for k in profile.kernels)
    assert profile.overhead > 0 and profile.call > 0


def test_profile_needs_an_entry_in_the_library(tmp_path):
    runner = qc.load(handmade.build(tmp_path / "out", profile=False).path)
    assert refusal(runner.profile, {"x": X}) == "the library has no profile entry; build the model again"


def test_a_rebuilt_artifact_is_loaded_anew(tmp_path):
    """At the path of one that is still in use: the system's loader knows libraries by their paths."""
    old = qc.load(handmade.build(tmp_path / "out", profile=False).path)
    new = qc.load(handmade.build(tmp_path / "out", profile=True).path)
    assert new.profile({"x": X}, seconds=0)
    assert "no profile entry" in refusal(old.profile, {"x": X})


def test_empty_weights_and_workspace(tmp_path):
    """A model may need neither; their pointers are valid all the same."""
    out = handmade.build(tmp_path / "out", weights=np.zeros(0, np.uint8), workspace_bytes=0).path
    runner = qc.load(out)
    assert runner._weights.size == 0 and runner._workspace.size == 0


def test_refuses_a_cpu_without_the_features(tmp_path):
    out = handmade.build(tmp_path / "out", features=("avx2", "avx10", "apx"), target="x86-next").path
    assert refusal(qc.load, out) == (
        f"{out}: built for x86-next, and this CPU lacks avx10, apx; "
        "build with --target native on this machine, or run it on a newer one"
    )


def test_refuses_another_architecture():
    assert refusal(features.check_cpu, "aarch64-linux-gnu", ("asimddp",), "arm-dotprod", "out") == (
        "out: built for aarch64 (arm-dotprod), this machine is x86_64; "
        "run it on such a machine or with --emulate, or build with --target native"
    )


def test_features_of_arm_and_x86(tmp_path, monkeypatch):
    for text in ("processor : 0\nflags\t\t: fpu avx2\n\nflags : other\n", "Features\t: fpu avx2\n"):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(features, "CPUINFO", tmp_path / "cpuinfo")
        assert features.host_features.__wrapped__() == {"fpu", "avx2"}
    monkeypatch.setattr(features, "CPUINFO", tmp_path / "missing")
    assert features.host_features.__wrapped__() == frozenset()


RUN_ELSEWHERE = """
import sys, numpy as np, qcompile as qc
runner = qc.load(sys.argv[1])
y = runner.run({"x": np.zeros((1, 64), np.float32)})["y"]
assert (y == np.arange(64)).all()
loaded = open("/proc/self/maps").read()
assert "libtvm_runtime.so" in loaded and "libtvm_compiler" not in loaded
assert not {"tvm", "onnx", "typer", "networkx"} & set(sys.modules)
import tvm_ffi
print(tvm_ffi.get_global_func("runtime.NumThreads")() if runner.manifest.threads > 1 else 1)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_running_needs_the_runtime_only(tmp_path, threads):
    """Neither tvm's Python nor its compiler is loaded, and parallel loops get the threads of the manifest."""
    out = handmade.build(tmp_path / "out", threads=threads).path
    done = subprocess.run([sys.executable, "-c", RUN_ELSEWHERE, out], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(threads), "")
