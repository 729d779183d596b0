"""An arm64 Python with ONNX Runtime in a folder of its own, to be run under QEMU: python -m benchmarks.arm.root

From Debian 12's packages and PyPI's wheels (200 MB); nothing is installed on this system.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "build" / "arm64-onnxruntime"
PYTHON = "usr/bin/python3.11"
_MIRROR = "https://deb.debian.org/debian"
_PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "libgomp1", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0"),
    *("liblzma5", "libuuid1", "libcrypt1", "python3.11-minimal", "libpython3.11-minimal", "python3.11"),
    "libpython3.11-stdlib",
)


def main() -> None:
    if ROOT.exists():
        print(f"{ROOT} is there already")
        return
    print(f"making {ROOT}")
    ROOT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT.parent) as scratch:
        new = Path(scratch) / "new"
        for package in _downloads():
            _unpack(package, new)
        _install_wheels(new / "site")
        new.rename(ROOT)


def _downloads() -> Iterator[bytes]:
    """The packages' files, checked against the archive's index."""
    index = lzma.decompress(_fetch("dists/bookworm/main/binary-arm64/Packages.xz")).decode()
    entries = (dict(_fields(entry)) for entry in index.split("\n\n") if entry)
    found = {entry["Package"]: entry for entry in entries if entry["Package"] in _PACKAGES}
    for name in _PACKAGES:
        data = _fetch(found[name]["Filename"])
        if hashlib.sha256(data).hexdigest() != found[name]["SHA256"]:
            sys.exit(f"error: {name}: damaged download")
        yield data


def _fields(entry: str) -> Iterator[tuple[str, str]]:
    for line in entry.splitlines():
        name, colon, value = line.partition(": ")
        if colon and not line.startswith(" "):
            yield name, value


def _fetch(path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"{_MIRROR}/{path}", timeout=60) as response:
            return response.read()
    except OSError as error:
        sys.exit(f"error: {_MIRROR}/{path}: {error}")


def _unpack(package: bytes, folder: Path) -> None:
    """A .deb is an ar archive: after 8 bytes, members of a 60-byte header each, padded to an even length."""
    start = 8
    while start < len(package):
        name, size = package[start : start + 16].strip(), int(package[start + 48 : start + 58])
        start += 60
        if name.startswith(b"data.tar"):
            with tarfile.open(fileobj=io.BytesIO(package[start : start + size])) as files:
                files.extractall(folder, filter="tar")
        start += size + size % 2


def _install_wheels(site: Path) -> None:
    """ONNX Runtime as it is here: the version that makes the int8 models also runs them."""
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 24, 17)]
    options = ["--python-version=3.11", "--only-binary=:all:", "--disable-pip-version-check", f"--target={site}"]
    wheels = [f"onnxruntime=={version('onnxruntime')}", "numpy"]
    pip = [sys.executable, "-m", "pip", "install", "-q", *platforms, "--platform=manylinux2014_aarch64", *options]
    if subprocess.run([*pip, *wheels], check=False).returncode:
        sys.exit("error: pip failed")


if __name__ == "__main__":
    main()
