"""``qcompile run``: its profile, and models that run in a process of their own."""

from __future__ import annotations

import json
import platform
import shutil

import numpy as np
import pytest

from tests.runtime import handmade

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the handmade library is for x86-64")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return handmade.build(tmp_path_factory.mktemp("built") / "out").path


@pytest.fixture
def run(cli, tmp_path):
    """``run(path, ...)`` with inputs -> (exit code, stdout, stderr)."""
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 64), np.float32))

    def call(*arguments) -> tuple[int, str, str]:
        return cli("run", *arguments, "--inputs", tmp_path / "x.npz")

    return call


def test_profile_is_a_row_a_kernel(run, built):
    code, out, err = run(built, "--profile")
    assert (code, err) == (0, "")
    rows = [" ".join(line.split()) for line in out.splitlines() if set(line.strip()) != {"─"}]
    assert rows[0] == "layer kernel us share"
    names = ["copy", "add add_0", "call overhead", "less the clock's readings", "whole call"]
    assert [row.rsplit(" ", 2)[0] for row in rows[1:6]] == names
    assert rows[6].startswith("peak of 1 thread, by a micro-kernel in this run: int8 ")


def test_profile_for_machines(run, built):
    code, out, err = run(built, "--profile", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["model"], found["target"], found["threads"]) == ("add.onnx", "x86-avx2", 1)
    assert [k["kernel"] for k in found["kernels"]] == ["copy", "add_0"]
    parts = sum(k["us"] for k in found["kernels"]) + found["overhead_us"] - found["clock_us"]
    assert parts == pytest.approx(found["call_us"])
    assert list(found["peak_gops"]) == ["int8"]


def test_json_is_for_profiles(run, built):
    assert run(built, "--json") == (2, "", "error: --json: it is the form of a profile; give --profile, too\n")


def test_profile_without_an_entry(run, tmp_path):
    code, _, err = run(handmade.build(tmp_path / "out", profile=False).path, "--profile")
    assert code == 2 and err == "error: the library has no profile entry; build the model again\n"


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_emulate_gives_what_loading_gives(run, built, tmp_path):
    for option in ([], ["--emulate"]):
        assert run(built, "--outputs", tmp_path / f"y{len(option)}.npz", *option) == (0, "", "")
    here, apart = (np.load(tmp_path / f"y{i}.npz")["y"] for i in (0, 1))
    np.testing.assert_array_equal(apart, here)


def test_emulation_has_no_profile(run, built):
    code, _, err = run(built, "--emulate", "--profile")
    assert (code, err) == (2, "error: --profile: times mean nothing under emulation; leave --emulate out\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rpc", "board"], "--rpc: 'board' is no address; write it as HOST:PORT, as in 10.0.0.5:9090"),
        (["--rpc", "board:99999"], "--rpc: 'board:99999' is no address; write it as HOST:PORT, as in 10.0.0.5:9090"),
        (["--rpc-key", "pi"], "--rpc-tracker: a machine of a tracker needs both its address and a key; give "),
        (["--rpc", "board:9090", "--emulate"], "--emulate: not on a machine behind RPC; leave one of them out"),
        (["--rpc", "board:9090", "--profile"], "--profile: not on a machine behind RPC; leave one of them out"),
        (["--rpc", "127.0.0.1:1"], "127.0.0.1:1: no RPC server answers: Connection refused; start one there: "),
    ],
)
def test_machines_that_cannot_be_meant(run, built, options, message):
    code, out, err = run(built, *options)
    assert (code, out) == (2, "") and err.startswith(f"error: {message}")
