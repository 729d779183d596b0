"""Any linker will do: each alone makes a library that loads, and none at all is explained."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tvm.ir import IRModule

from qcompile import link
from qcompile.artifact import LIBRARY, write_library
from qcompile.compile import compile_module
from qcompile.errors import QCompileError
from qcompile.link import _linker
from qcompile.manifest import TensorInfo
from qcompile.runtime import emulate
from qcompile.runtime.executable import DESCRIPTION, describe, runner_for
from qcompile.targets.arm import ROWS
from qcompile.targets.kernels import builder as b
from tests.emulation import skip_without

ARM = ROWS[1]


def only(monkeypatch, folder: Path, *programs: str) -> None:
    """A PATH that has these programs alone; and no ziglang, unless it is named."""
    folder.mkdir()
    for name in programs:
        if name != "ziglang":
            (folder / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} is not installed"))
    monkeypatch.setenv("PATH", str(folder))
    found = importlib.util.find_spec
    missing = None if "ziglang" not in programs else found("ziglang") or pytest.skip("ziglang is not installed")
    monkeypatch.setattr(link.importlib.util, "find_spec", lambda name: missing if name == "ziglang" else found(name))


@pytest.mark.parametrize(
    "programs",
    [("ld.lld",), ("aarch64-linux-gnu-ld",), ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld"), ("ziglang",)],
    ids=lambda programs: programs[0],
)
def test_each_alone_links_what_runs(programs, monkeypatch, tmp_path):
    skip_without(ARM)
    command = [*emulate.launcher(ARM.triple, ARM.features), str(runner_for(ARM.triple))]

    def body(x, y) -> None:
        with b.loop(16) as i:
            b.store(y, i * 4, b.load(x, i * 4, 4) + b.splat(1.0, "float32", 4), 4)

    kernel = b.kernel("main", [("x", "float32", 64), ("y", "float32", 64)], body)
    module = compile_module(IRModule({"main": kernel.with_attr("global_symbol", "main")}), ARM)
    only(monkeypatch, tmp_path / "bin", *programs)
    model = tmp_path / "model"
    model.mkdir()
    write_library(module, model / LIBRARY, ARM.triple)
    x, y = TensorInfo("x", (64,), "float32"), TensorInfo("y", (64,), "float32")
    (model / DESCRIPTION).write_text(describe([x], [y]))
    values = np.arange(64, dtype=np.float32)
    np.testing.assert_array_equal(emulate.call(command, model, [values], [y])[0], values + 1)


def fake(folder: Path, *programs: str) -> None:
    for name in programs:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def test_the_order_for_other_machines(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(link.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(link.importlib.util, "find_spec", lambda name: object())
    found = lambda: os.path.basename(_linker(ARM.triple)[0])  # noqa: E731
    assert _linker(ARM.triple)[:4] == [sys.executable, "-m", "ziglang", "ld.lld"]
    for name in ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld", "ld.lld"):  # each before what came before it
        fake(tmp_path, name)
        assert found() == name
    fake(tmp_path, "ld", "cc")  # of this machine
    assert found() == "ld.lld"


def test_none_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(link.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(link.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QCompileError) as caught:
        _linker(ARM.triple)
    assert str(caught.value) == (
        "no linker for aarch64 found (looked for ld.lld, binutils-aarch64-linux-gnu, a C compiler and the ziglang "
        "package); install one: \"pip install 'qcompile[arm]'\", or 'apt install binutils-aarch64-linux-gnu'"
    )
