"""``package``: an artifact and all that running it elsewhere takes, as one archive: no TVM, no compiler, no ONNX."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

from qcompile.artifact import LIBRARY, MANIFEST, WEIGHTS, open_artifact
from qcompile.errors import QCompileError
from qcompile.manifest import Manifest, TensorInfo
from qcompile.runtime.executable import DESCRIPTION, HEADERS, RUNTIME, SOURCES, description_of, library_for, runner_for

_SUFFIXES = (".tar.gz", ".tgz")
_SOURCES = (*RUNTIME, *HEADERS, "run.c", "run.cpp")
_README = """\
{model}, compiled by qcompile {version} for {target} ({machine}, Linux).

The CPU must have: {features}. What runs the model says so if it has not.

## From the command line

    ./run . {files}

Files are raw arrays, little-endian and C-contiguous, inputs before outputs:

{tensors}

`--repeat 100` behind the folder calls the model so often, and tells the time of the fastest call. `--threads 2` shares
it among threads, of which a model built for one makes no use; results do not depend on it.

## From Python (needs numpy)

    python3 run.py inputs.npz outputs.npz

    from run import Model
    outputs = Model().run(inputs)       # arrays by name, in this process

## From C++ or C

    qcompile::Model model("folder");    // src/qcompile.hpp; src/qcompile.h for C
    std::copy(x.begin(), x.end(), model.input(0).data<float>());
    model.run();

src/run.cpp is `run` in C++, to start from:

    c++ -std=c++17 -O2 -pthread -o run++ -x c++ src/run.cpp {runtime}

## Files

run, libqcompile.so  the same runtime, as a static program and as a shared library (glibc 2.17); src has the source
model.so             the code of the model. weights.bin: its constants. model.txt: its arguments
manifest.json        what it was built from, layer by layer
"""


def package(path: str | Path, out: str | Path) -> Path:
    """Writes the artifact at ``path`` as an archive ``out`` (.tar.gz) of one folder; equal artifacts, equal bytes.

    Raises ``QCompileError`` if the artifact is damaged or not for a CPU, no compiler for its machine is there, or
    ``out`` cannot be written; an older file there then stays as it was.
    """
    out = Path(out)
    suffix = next((suffix for suffix in _SUFFIXES if out.name.endswith(suffix)), None)
    if suffix is None:
        raise QCompileError(f"the name of a package ends in {' or '.join(_SUFFIXES)}", node=str(out))
    artifact = open_artifact(path)
    manifest = artifact.manifest
    if not (artifact.path / LIBRARY).exists():
        remedy = "copy its folder, and load it with qcompile.load"
        raise QCompileError(f"built for {manifest.target}, and packages are for CPUs", node=str(path), remedy=remedy)
    folder = out.name.removesuffix(suffix)
    files = {
        "README.md": (_readme(manifest).encode(), 0o644),
        DESCRIPTION: (f"{description_of(manifest)}threads {manifest.threads}\n".encode(), 0o644),
        "run": (runner_for(manifest.triple).read_bytes(), 0o755),
        "run.py": ((SOURCES / "run.py").read_bytes(), 0o644),
        "libqcompile.so": (library_for(manifest.triple).read_bytes(), 0o644),
        **{f"src/{name}": ((SOURCES / name).read_bytes(), 0o644) for name in _SOURCES},
        **{name: ((artifact.path / name).read_bytes(), 0o644) for name in (LIBRARY, MANIFEST, WEIGHTS)},
    }
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        try:
            with os.fdopen(handle, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                _write(packed, folder, files)
            os.chmod(name, 0o644)
            os.replace(name, out)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise QCompileError(f"cannot be written: {error.strerror}", node=str(out)) from None
    return out


def _write(packed: gzip.GzipFile, folder: str, files: dict[str, tuple[bytes, int]]) -> None:
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (data, mode) in sorted(files.items()):
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))


def _readme(manifest: Manifest) -> str:
    def line(kind: str, number: int, t: TensorInfo) -> str:
        codes = t.quantization
        meaning = f", real = {codes.scale!r} * (code - {codes.zero_point})" if codes else ""
        return f"    {kind}{number}.bin  {t.name}  {t.dtype} {'x'.join(map(str, t.shape))}{meaning}"

    tensors = [("input", i, t) for i, t in enumerate(manifest.inputs)]
    tensors += [("output", i, t) for i, t in enumerate(manifest.outputs)]
    return _README.format(
        model=manifest.model,
        version=manifest.qcompile,
        target=manifest.target,
        machine=manifest.triple.split("-")[0],
        features=", ".join(manifest.features),
        runtime=" ".join(f"src/{name}" for name in RUNTIME),
        files=" ".join(f"{kind}{number}.bin" for kind, number, _ in tensors),
        tensors="\n".join(line(*tensor) for tensor in tensors),
    )
