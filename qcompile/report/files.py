"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
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


def make_folder(path: Path) -> None:
    """Makes a folder if it is not there. Raises ``QCompileError`` where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise QCompileError("it is a file", node=str(path), remedy="name a folder") from None
    except OSError as error:
        reason = f"the folder cannot be made: {error.strerror}"
        raise QCompileError(reason, node=str(path), remedy="name another") from None


def write_whole(path: Path, text: str) -> None:
    """Writes a file, or leaves the older one as it is and raises ``QCompileError``."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            try:
                file.write(text)
                file.flush()
                os.chmod(file.name, 0o666 & ~_umask())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        remedy = "free some space" if is_full(error) else "choose another place"
        raise QCompileError(f"cannot be written: {error.strerror or error}", node=str(path), remedy=remedy) from None


def is_full(error: OSError) -> bool:
    """Whether a disk is, or a user's share of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
