"""From an object file to a shared library, the same bytes every time, with whatever linker the machine has.

Generated code calls nothing but the TVM runtime, libc and libm, and all three are in the process that loads it; so
there is nothing to link against, and a bare ``ld`` is enough.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from qcompile.errors import QCompileError

# -s, --gc-sections and -z noseparate-code keep small models small; --build-id=none keeps hashes out of the bytes.
_FLAGS = ("-shared", "-s", "--build-id=none", "--gc-sections", "--hash-style=gnu", "-z", "noseparate-code")


def link_shared(source: Path, output: Path, triple: str) -> None:
    """Links one relocatable object into ``output``.

    Raises ``QCompileError`` if no linker is there or it fails, ``OSError`` if the disk is full.
    """
    command = [*_linker(triple), "-o", output.name, source.name]
    done = subprocess.run(command, cwd=output.parent, capture_output=True, text=True, check=False)
    if os.strerror(errno.ENOSPC) in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode:
        raise QCompileError(f"linking failed: {done.stderr.strip()}", node=" ".join(command[:1]))


def _linker(triple: str) -> list[str]:
    arch = triple.split("-")[0]
    here = arch == platform.machine()
    for name in ("ld", "ld.lld") if here else ("ld.lld", f"{arch}-linux-gnu-ld"):
        if path := shutil.which(name):
            return [path, *_FLAGS]
    if path := shutil.which("cc" if here else f"{arch}-linux-gnu-gcc"):
        return [path, "-nostdlib", "-shared", "-s", f"-Wl,{','.join(_FLAGS[2:])}"]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "ld.lld", *_FLAGS]
    package = "binutils" if here else f"binutils-{arch.replace('_', '-')}-linux-gnu"
    raise QCompileError(
        f"no linker for {arch} found (looked for ld.lld, {package}, a C compiler and the ziglang package)",
        remedy=f"install one: \"pip install 'qcompile[arm]'\", or 'apt install {package}'",
    )
