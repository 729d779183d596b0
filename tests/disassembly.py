"""SASS, the instructions in a cubin, by NVIDIA's tools from PyPI or a toolkit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest


def disassembled(cubin: bytes, folder: Path) -> dict[str, str]:
    """The instructions of each kernel. Skips the test where no disassembler is installed."""
    places = [str(path.parent) for name in ("cuobjdump", "nvdisasm") if (path := _installed(name)) is not None]
    search = os.pathsep.join([*places, os.environ.get("PATH", "")])
    tool = shutil.which("cuobjdump", path=search)
    if tool is None or shutil.which("nvdisasm", path=search) is None:
        pytest.skip("no disassembler is installed (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)")
    (folder / "a.cubin").write_bytes(cubin)
    told = subprocess.run(
        [tool, "--dump-sass", str(folder / "a.cubin")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": search},
    )
    return dict(re.findall(r"Function : (\w+)(.*?)(?=Function : |\Z)", told.stdout, re.S))


def _installed(tool: str) -> Path | None:
    try:
        files = distribution(f"nvidia-cuda-{tool}").files or ()
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == tool), None)
