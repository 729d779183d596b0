"""The artifact folder: ``model.so``, ``weights.bin``, ``manifest.json``, ``plan.json``.

It appears whole or not at all: written beside its place, synced, then swapped with what was there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompile.errors import QCompileError
from qcompile.link import link_shared
from qcompile.manifest import FORMAT, FileInfo, Manifest
from qcompile.plan import QuantPlan

if TYPE_CHECKING:
    import numpy as np

LIBRARY, WEIGHTS, MANIFEST, PLAN = "model.so", "weights.bin", "manifest.json", "plan.json"
FILES = (LIBRARY, WEIGHTS, MANIFEST, PLAN)
_EVER = (*FILES, "model.cubins")  # of any kind of artifact
_REMEDY = "name a folder that is new, empty or an older artifact"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A built model on disk."""

    path: Path
    manifest: Manifest

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.path / name).stat().st_size for name in files_of(self.manifest))

    @property
    def plan(self) -> QuantPlan:
        return QuantPlan.load(self.path / PLAN)


def files_of(manifest: Manifest) -> tuple[str, ...]:
    """The names of an artifact's files."""
    return (manifest.library_file, WEIGHTS, MANIFEST, PLAN)


def check_output(out: str | Path) -> None:
    """Raises ``QCompileError`` if an artifact could not be put at ``out``; call it before an hour of work."""
    place = _resolved(out)
    _check_place(place, out)
    parent = next(p for p in place.parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise QCompileError("cannot be written: no permission there", node=str(out), remedy="choose another folder")


def write_artifact(
    out: str | Path, *, module: Any, weights: np.ndarray, manifest: Manifest, plan: QuantPlan
) -> Artifact:
    """Writes or replaces the artifact at ``out``.

    module: the compiled TVM executable (or LLVM module), its entry ``main`` takes inputs, outputs, weights, workspace;
    or a library of GPU code, as bytes.
    weights: flat uint8 array. manifest: sizes, hashes and versions are filled in here.

    Raises ``QCompileError`` if ``out`` holds anything but an older artifact or cannot be written. Whatever happens, an
    older artifact stays as it is until the new one is complete.
    """
    place = _resolved(out)
    _check_place(place, out)
    with _readable_errors(out), _folder_beside(place) as new:
        library = new / manifest.library_file
        if isinstance(module, bytes):
            library.write_bytes(module)
        else:
            write_library(module, library, manifest.triple)
        weights.tofile(new / WEIGHTS)
        plan.save(new / PLAN)
        manifest = replace(
            manifest,
            library=_info(library),
            weights=_info(new / WEIGHTS),
            qcompile=installed_version("qcompile"),
            tvm=installed_version("apache-tvm"),
        )
        (new / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        for name in files_of(manifest):
            _sync(new / name)
        _sync(new)
        _swap(new, place)
        _sync(place.parent)
    return Artifact(Path(out), manifest)


def open_artifact(path: str | Path, verify: bool = True) -> Artifact:
    """The artifact at ``path``; its files' sizes, and with ``verify`` their hashes, are compared with the manifest.

    Raises ``QCompileError`` if it is not an artifact, is damaged, or has a format this version does not know.
    """
    place = Path(path)
    try:
        text = (place / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "no such folder" if not place.exists() else f"not an artifact ({MANIFEST}: {_words(error)})"
        raise QCompileError(why, node=str(path), remedy="give a folder made by 'qcompile build'") from None
    manifest = Manifest.from_json(text, str(place / MANIFEST))
    for name, info in ((manifest.library_file, manifest.library), (WEIGHTS, manifest.weights)):
        file = place / name
        try:
            good = file.stat().st_size == info.bytes and (not verify or _info(file) == info)
        except OSError as error:
            raise QCompileError(_words(error), node=str(file), remedy="build the model again") from None
        if not good:
            raise QCompileError(
                "damaged: not the file that the manifest describes", node=str(file), remedy="build the model again"
            )
    return Artifact(place, manifest)


def _resolved(out: str | Path) -> Path:
    return Path(os.path.realpath(out))


def _check_place(place: Path, out: str | Path) -> None:
    try:
        found = sorted(p.name for p in place.iterdir()) if place.exists() else []
    except NotADirectoryError:
        raise QCompileError("is a file", node=str(out), remedy=_REMEDY) from None
    except OSError as error:
        raise QCompileError(_words(error), node=str(out), remedy="choose another folder") from None
    foreign = [name for name in found if name not in _EVER] or ([] if _is_artifact(place) else found)
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise QCompileError(
            f"holds files that are not of an artifact: {shown}",
            node=str(out),
            remedy=_REMEDY,
        )


def _is_artifact(place: Path) -> bool:
    """Whether our writer made it, in any version of the format, damaged or not."""
    try:
        return f'"{FORMAT}"' in (place / MANIFEST).read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        return False


@contextlib.contextmanager
def _folder_beside(place: Path) -> Iterator[Path]:
    """A new folder next to ``place``, gone at the end together with what it then holds."""
    place.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        umask = os.umask(0)
        os.umask(umask)
        new.chmod(0o777 & ~umask)
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_library(module: Any, library: Path, triple: str) -> None:
    """Links what ``qcompile.compile`` made into a shared library. Raises ``QCompileError`` or ``OSError``."""
    llvm = getattr(module, "mod", module)
    if llvm.imports:
        raise QCompileError(f"the compiled module imports others: {', '.join(m.kind for m in llvm.imports)}")
    code = library.with_suffix(".o")
    code.write_bytes(_object_code(llvm))
    link_shared(code, library, triple)
    code.unlink()


def _object_code(llvm: Any) -> bytes:
    """By way of memory: LLVM ends the process when a disk is full."""
    handle = os.memfd_create("object code")
    with os.fdopen(handle, "rb") as memory:
        llvm.write_to_file(f"/proc/self/fd/{handle}", "o")
        return memory.read()


def _swap(new: Path, place: Path) -> None:
    """Puts ``new`` at ``place``; what was there, if anything, is then at ``new``."""
    if place.exists() and not _exchange(new, place):
        # A file system that cannot exchange: for a moment the older artifact has another name; on failure it returns.
        old = new.with_name(new.name + ".old")
        place.rename(old)
        try:
            new.rename(place)
        except BaseException:
            old.rename(place)
            raise
        old.rename(new)
    elif new.exists() and not place.exists():
        new.rename(place)


def _exchange(a: Path, b: Path) -> bool:
    """Swaps two folders in one step (Linux renameat2, RENAME_EXCHANGE); False where that is not possible."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    at_cwd, exchange = -100, 2
    return rename is not None and rename(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _info(path: Path) -> FileInfo:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return FileInfo(file.tell(), digest.hexdigest())


def installed_version(package: str) -> str:
    """Of a Python package."""
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


@contextlib.contextmanager
def _readable_errors(out: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space and build again" if full else "choose another folder"
        raise QCompileError(f"cannot be written: {_words(error)}", node=str(out), remedy=remedy) from None


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
