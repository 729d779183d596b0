"""Runs the model of this folder from Python; needs numpy, and nothing else.

python3 run.py inputs.npz [outputs.npz]        arrays by input name, in the model's shapes
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
Tensor = tuple[str, tuple[int, ...], str]  # name, shape, dtype


def tensors(kind: str) -> list[Tensor]:
    """The model's tensors of a kind, "input" or "output", from model.txt."""
    found = []
    for line in (HERE / "model.txt").read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if word == kind:
            dtype, rank, rest = rest.split(" ", 2)
            *extents, name = rest.split(" ", int(rank))
            found.append((name, tuple(map(int, extents)), dtype))
    return found


def run(feed: Mapping[str, np.ndarray], launcher: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """One run: arrays by input name -> arrays by output name. launcher: words before the program, of an emulator."""
    with tempfile.TemporaryDirectory() as folder:
        files: list[Path] = []
        for name, shape, dtype in tensors("input"):
            array = np.ascontiguousarray(feed[name], dtype)
            if array.shape != shape:
                raise ValueError(f"{name}: shape {array.shape}, the model has {shape}")
            files.append(Path(folder) / f"input{len(files)}")
            array.tofile(files[-1])
        results = [Path(folder) / f"output{i}" for i in range(len(tensors("output")))]
        subprocess.run(
            [*launcher, str(HERE / "run"), str(HERE), *map(str, files + results)], check=True, stdout=subprocess.DEVNULL
        )
        return {
            name: np.fromfile(file, dtype).reshape(shape)
            for file, (name, shape, dtype) in zip(results, tensors("output"), strict=True)
        }


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    outputs = run(np.load(sys.argv[1]))
    if len(sys.argv) > 2:
        np.savez(sys.argv[2], **outputs)  # type: ignore[arg-type]
    for name, array in outputs.items():
        print(name, array.dtype, array.shape, "largest at", int(array.argmax()))
