"""The C runner: on this machine without an emulator, and on ARM under one."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil

import numpy as np
import pytest

from qcompile.errors import QCompileError
from qcompile.manifest import TensorInfo
from qcompile.runtime import emulate, executable
from qcompile.runtime.emulate import Emulator
from qcompile.runtime.executable import DESCRIPTION, describe, runner_for
from qcompile.targets.arm import ROWS
from qcompile.targets.kernels import builder as b
from tests.emulation import count_kernel, run_kernel, skip_without
from tests.runtime import handmade

ARM = ROWS[1]
HERE = f"{platform.machine()}-linux-gnu"
X = np.linspace(-3, 3, 64, dtype=np.float32).reshape(handmade.SHAPE)
handmade_runs = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("cc"), reason="the handmade library is for x86-64; needs cc"
)


def refusal(function, *arguments) -> str:
    with pytest.raises(QCompileError) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return handmade.build(tmp_path_factory.mktemp("built") / "out").path


@handmade_runs
@pytest.mark.parametrize("threads", [1, 2])
def test_same_results_as_in_this_process(tmp_path, threads):
    """Parallel loops included, whose tasks take turns."""
    emulator = Emulator(handmade.build(tmp_path / "out", threads).path)
    assert [t.name for t in emulator.inputs] == ["x"] and [t.name for t in emulator.outputs] == ["y"]
    for _ in range(2):
        result = emulator.run({"x": X})
        np.testing.assert_array_equal(result["y"], X + handmade.WEIGHTS)


@handmade_runs
def test_wrong_feeds(built):
    emulator = Emulator(built)
    assert refusal(emulator.run, {}) == "no value for input 'x'; give float32 of (1, 64)"
    assert refusal(emulator.run, {"z": X}) == "the model has no input 'z'; (one of: x)"
    assert refusal(emulator.run, {"x": X[:, 1:]}) == "input x: shape (1, 63), the model has (1, 64)"


@handmade_runs
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": ("avx2", "sse5")}, "built for x86-avx2, and this CPU lacks sse5"),
    ],
)
def test_what_a_machine_lacks_is_said(tmp_path, changes, said):
    emulator = Emulator(handmade.build(tmp_path / "out", **changes).path)
    assert said in refusal(emulator.run, {"x": X})


def test_writing_past_the_end_is_seen(tmp_path):
    """Kernels know no shapes; bytes behind every buffer must stay as they were."""
    skip_without(ARM)

    def body(x, y) -> None:
        with b.loop(63) as i:
            b.store(y, i, x[i], 1)
        b.store(y, 63, x[0], 1)

    kernel = b.kernel("copy", [("x", "float32", 64), ("y", "float32", 63)], body)
    message = refusal(run_kernel, kernel, [X.reshape(-1)], (63, "float32"), ARM)
    assert "the model wrote 1 bytes behind its output" in message


def test_a_description_names_arguments_in_order():
    text = describe(
        [TensorInfo("an image", (1, 3, 8, 8), "uint8")], [TensorInfo("y", (), "float32")], ["machine x"], ["weights 9"]
    )
    assert text.splitlines() == [
        "format 1",
        "machine x",
        "input uint8 4 1 3 8 8 an image",
        "output float32 0 y",
        "weights 9",
    ]


def test_no_emulator_is_explained(monkeypatch):
    monkeypatch.setattr(emulate.shutil, "which", lambda name: None)
    monkeypatch.setattr(emulate.platform, "machine", lambda: "x86_64")
    assert refusal(emulate.launcher, ARM.triple, ()) == (
        "built for aarch64, this machine is x86_64, and qemu-aarch64 is not installed; "
        "install it ('apt install qemu-user'), or run the model on such a machine"
    )


def test_no_compiler_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(executable.shutil, "which", lambda name: None)
    monkeypatch.setattr(executable.importlib.util, "find_spec", lambda name: None)
    assert refusal(runner_for, ARM.triple) == (
        "no C compiler for aarch64 found (looked for aarch64-linux-gnu-gcc and the ziglang package); "
        "install one: \"pip install 'qcompile[arm]'\", or 'apt install gcc-aarch64-linux-gnu'"
    )


@handmade_runs
@pytest.mark.parametrize("zig", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_compiler_without_static_libraries(monkeypatch, tmp_path, built, zig):
    """Zig has its own; else the program needs this machine's libc."""
    if zig and not importlib.util.find_spec("ziglang"):
        pytest.skip("needs the ziglang package")
    (tmp_path / "cc").write_text(f"""#!/bin/sh
        case "$*" in *-static*) echo no libc.a >&2; exit 1;; esac
        exec {shutil.which("cc")} "$@"
    """)
    (tmp_path / "cc").chmod(0o755)
    (tmp_path / "qcompile").mkdir()
    (tmp_path / "qcompile" / "zig").symlink_to(runner_for(HERE).parent / "zig")  # what it has compiled before
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if not zig:
        monkeypatch.setattr(executable.importlib.util, "find_spec", lambda name: None)
    assert (b"ld-linux" in runner_for(HERE).read_bytes()) == (not zig)
    np.testing.assert_array_equal(Emulator(built).run({"x": X})["y"], X + handmade.WEIGHTS)


@pytest.mark.parametrize(("row", "cpu"), list(zip(ROWS, ["max", "neoverse-n1", "cortex-a53"], strict=True)))
def test_the_plainest_cpu_is_emulated(monkeypatch, row, cpu):
    monkeypatch.setattr(emulate.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(emulate.platform, "machine", lambda: "x86_64")
    assert emulate.launcher(row.triple, row.features) == ["/bin/qemu-aarch64", "-cpu", cpu]


def test_a_cpu_without_the_feature_is_refused(tmp_path):
    """By the runner, before anything is called."""
    skip_without(ARM)
    needs = ["machine aarch64", "target arm-dotprod", "feature asimd", "feature asimddp"]
    (tmp_path / DESCRIPTION).write_text(describe([], [], needs))
    command = [*emulate.launcher(ARM.triple, ()), str(runner_for(ARM.triple))]
    assert command[1:3] == ["-cpu", "cortex-a53"]
    assert "built for arm-dotprod, and this CPU lacks asimddp" in refusal(emulate.call, command, tmp_path, [], [])


@pytest.mark.parametrize("target", ROWS, ids=lambda row: row.name)
def test_kernels_of_arm_run(target):
    def body(x, y) -> None:
        with b.loop(20) as i:
            b.store(y, i * 3, b.load(x, i * 3, 3) + b.splat(1.5, "float32", 3), 3)

    kernel = b.kernel("add", [("x", "float32", 60), ("y", "float32", 60)], body)
    x = np.arange(60, dtype=np.float32)
    np.testing.assert_array_equal(run_kernel(kernel, [x], (60, "float32"), target), x + np.float32(1.5))


def test_parallel_loops_run_on_arm():
    """Their tasks one after the other: the runner has no threads."""
    skip_without(ARM)

    def body(x, y) -> None:
        with b.loop(16, parallel=True) as i:
            b.store(y, i * 4, b.load(x, i * 4, 4) + b.splat(1.0, "float32", 4), 4)

    kernel = b.kernel("add", [("x", "float32", 64), ("y", "float32", 64)], body)
    result = run_kernel(kernel, [X.reshape(-1)], (64, "float32"), ARM.with_threads(2))
    np.testing.assert_array_equal(result, X.reshape(-1) + 1)


def test_instructions_of_a_call_are_counted():
    """Of a loop of 1000 steps: what both the runner and loading do is not in it."""
    skip_without(ARM)
    counts = []
    for extent in (1000, 3000):

        def body(x, y, extent=extent) -> None:
            with b.loop(extent) as i:
                b.store(y, i * 4, b.load(x, i * 4, 4) * b.load(x, i * 4, 4), 4)

        kernel = b.kernel("square", [("x", "float32", 12000), ("y", "float32", 12000)], body)
        counts.append(count_kernel(kernel, [np.zeros(12000, np.float32)], (12000, "float32"), ARM))
    assert counts[0]["fmul"] == 1000
    assert counts[1]["fmul"] - counts[0]["fmul"] == 2000
