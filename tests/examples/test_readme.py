"""What the README tells people to type works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qcompile.targets.select import select_target
from tests.emulation import missing

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
# The same with less to do.
QUICK = {"bench": "--vs none --duration 0.05", "build": "--num-samples 8", "tune": "--trials 4"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_commands(folder):
    """Commands of console blocks, in order; one shown with an error gives that error. ``bench`` needs the peers.

    What is for ARM is left out where that cannot be linked or emulated.
    """
    console = "".join(text for kind, text in BLOCKS if kind == "console")
    commands = re.findall(r"^\$ qcompile (.*)\n((?:(?!\$ ).*\n)*)", console, re.M)
    assert {"build", "run", "inspect", "bench", "tune", "log"} <= {command.split()[0] for command, _ in commands}
    foreign = missing(select_target("cortex-a76").triple)
    for command, shown in commands:
        if foreign and ("--emulate" in command or "--target cortex" in command):
            continue
        for name, quick in QUICK.items():
            command += f" {quick}" if command.startswith(name) else ""
        program = "from qcompile.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, *command.split()], cwd=folder, capture_output=True, text=True
        )
        if shown.startswith("error:"):
            assert (done.returncode, done.stderr) == (2, shown), command
        else:
            assert done.returncode == 0, f"{command}: {done.stderr}"


def test_python(folder):
    """Its one Python block runs and reads the sample, which is a 2."""
    (program,) = (text for kind, text in BLOCKS if kind == "python")
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"]


def test_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    named = re.findall(r"^make ([a-z-]+)", "\n".join(text for kind, text in BLOCKS if kind == "sh"), re.M)
    assert named and not {*named} - {*targets}


def test_folders_exist():
    table = (ROOT / "README.md").read_text().partition("| folder | holds |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.M)
    folders = [name for row in rows for name in re.findall(r"`([a-z/]+)`", row)]
    assert folders and all((ROOT / name).is_dir() for name in folders)
