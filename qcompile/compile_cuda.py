"""From CUDA programs to their library: machine code of each architecture, in one file.

The file is a zip archive: ``sm_80.cubin`` and its like, and ``compute_90.ptx`` for architectures to come, which is the
program of the newest one. Equal programs and compilers, equal bytes.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from qcompile.targets.cuda.compiler import Compiler
from qcompile.targets.cuda.program import Program
from qcompile.targets.cuda.rows import CudaTarget

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows


def compile_programs(programs: Mapping[str, Program], target: CudaTarget, compiler: Compiler) -> bytes:
    """The library of programs by architecture. Raises ``QCompileError`` for what the compiler refuses."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # compilers run outside of Python's lock
        cubins = pool.map(lambda arch: compiler.cubin(programs[arch].source, arch).code, target.architectures)
        files = {f"{arch}.cubin": code for arch, code in zip(target.architectures, cubins, strict=True)}
    if target.ptx:
        files[f"{target.ptx}.ptx"] = compiler.ptx(programs[target.architectures[-1]].source, target.ptx)
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED, 9)
    return memory.getvalue()
