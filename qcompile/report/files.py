"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from qcompile.errors import QCompileError


def check_place(path: Path) -> None:
    """Raises ``QCompileError`` where no file can be written: before hours of work, not after."""
    if not path.parent.is_dir():
        raise QCompileError("no such folder", node=str(path.parent), remedy="make it first")
    if path.is_dir():
        raise QCompileError("it is a folder", node=str(path), remedy="give the name of a file")
    if not os.access(path.parent, os.W_OK):
        raise QCompileError("nothing may be written there", node=str(path.parent), remedy="choose another folder")


def write_whole(path: Path, text: str) -> None:
    """Writes a file, or leaves the older one as it is."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(text)
            file.close()
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
