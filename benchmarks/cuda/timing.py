"""Kernels timed one by one on a GPU, through the driver alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.runtime import driver as drivers
from qcompile.runtime.driver import SHARED

CODE = "kernels.cubin.gz"  # of a sweep, beside sweep.json
REPEATS, ROUNDS = 20, 5  # launches in a graph, and graphs; the fastest counts
LARGE = 0.5  # of the most multiply-accumulates that a product has: from there on it is a large one
Launch = tuple[int, int, int, int, list[int]]  # kernel, grid, block, bytes of shared memory, arguments


ARCH = "arch"  # the file that says what the code is for


def arch_of(folder: Path) -> str:
    """ "sm_90"."""
    return (folder / ARCH).read_text().strip()


class Gpu:
    """The first GPU of this machine."""

    def __init__(self) -> None:
        self.driver = drivers.open_driver(drivers.LIBRARY)
        self.device = self.driver.device(0)
        self.driver.use_primary_context(self.device)
        self.name = self.driver.name(self.device)
        self.stream = self.driver.stream()

    def runs(self, folder: Path) -> bool:
        """Whether it runs the code of a folder."""
        major, minor = self.driver.capability(self.device)
        digits = arch_of(folder).removeprefix("sm_")
        return int(digits[:-1]) == major and int(digits[-1]) <= minor

    def peak(self, folder: Path) -> float:
        """Operations a second of Tensor Cores that do nothing else, int8."""
        about = json.loads((folder / "sweep.json").read_text())["peak"]
        kernel = self.driver.function(self.driver.load(gzip.decompress((folder / CODE).read_bytes())), "peak")
        memory = [self._random(1 << 16) for _ in range(2)]
        grid = 8 * self.driver.processors(self.device)
        best = self._microseconds([(kernel, grid, about["block"], 0, memory)])
        for pointer in memory:
            self.driver.free(pointer)
        return 2 * grid * about["products"] * about["macs"] / best * 1e6

    def sweep(self, folder: Path, peak: float) -> list[dict[str, Any]]:
        """Prints each layer's tiles, fastest first; returns the rows with their times."""
        about = json.loads((folder / "sweep.json").read_text())
        module = self.driver.load(gzip.decompress((folder / CODE).read_bytes()))
        if not about["rows"]:
            return []
        largest = [max(row["arguments"][i] for row in about["rows"] if i < len(row["arguments"])) for i in range(6)]
        memory = [self._random(size + 256) for size in largest]
        rows = []
        for row in about["rows"]:
            kernel = self._function(module, row["kernel"], row["shared"])
            pointers = memory[: len(row["arguments"])]
            launch = (kernel, row["grid"], row["block"], row["shared"], pointers)
            rows.append({**row, "us": self._microseconds([launch] * REPEATS) / REPEATS})
        for pointer in memory:
            self.driver.free(pointer)
        print(f"\ntiles of batch {folder.name}:")
        for layer in dict.fromkeys(row["layer"] for row in rows):
            tiles = sorted((row for row in rows if row["layer"] == layer), key=lambda row: row["us"])
            default = next((row for row in tiles if row["default"]), tiles[0])
            rate = 2 * tiles[0]["macs"] / tiles[0]["us"] * 1e6
            print(f"  {layer:44} {tiles[0]['us']:8.1f} us {rate / peak:6.1%} of peak, {tiles[0]['tile']}", end="")
            print("" if default is tiles[0] else f" (default {default['us']:.1f} us, {default['tile']})", flush=True)
        self._larger(rows, peak)
        return rows

    def _larger(self, rows: list[dict[str, Any]], peak: float) -> None:
        """Prints which share of the peak the larger products reach, and how far the model's choice is from the best."""
        most = max(row["macs"] for row in rows)
        for which in ("default", "best"):
            shares = []
            for layer in dict.fromkeys(row["layer"] for row in rows if row["macs"] >= LARGE * most):
                of = [row for row in rows if row["layer"] == layer]
                chosen = [row for row in of if row["default"]] if which == "default" else of
                shares.append(max(2 * row["macs"] / row["us"] * 1e6 / peak for row in chosen or of))
            text = f"min {min(shares):.1%}, median {float(np.median(shares)):.1%}, max {max(shares):.1%}"
            print(f"larger products ({len(shares)}), {which} tiles: {text} of the peak", flush=True)

    def layers(self, folder: Path) -> list[int]:
        """Runs what ``benchmarks.cuda.layers`` wrote; the numbers of those with other results than expected."""
        rows = json.loads((folder / "layers.json").read_text())
        module = self.driver.load(gzip.decompress((folder / CODE).read_bytes()))
        wrong = []
        with np.load(folder / "arrays.npz") as arrays:
            for number, row in enumerate(rows):
                mine = {name.partition("/")[2]: arrays[name] for name in arrays.files if name.startswith(f"{number}/")}
                if not self._gives(module, row, mine):
                    wrong.append(number)
        return wrong

    def _gives(self, module: int, row: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
        driver, stream = self.driver, self.stream
        memory = {"workspace": driver.allocate(row["workspace"])}
        for name, array in arrays.items():
            content = np.ascontiguousarray(np.zeros_like(array) if name.startswith("output") else array)
            memory[name] = driver.allocate(array.nbytes)
            driver.to_device(memory[name], content.ctypes.data, content.nbytes, stream)
            driver.wait(stream)
        for kernel, grid, block, shared, arguments in row["launches"]:
            pointers = [memory[name] + offset for name, offset in arguments]
            driver.launch(self._function(module, kernel, shared), grid, block, shared, stream, pointers)
        equal = True
        for name in (name for name in arrays if name.startswith("output")):
            got = np.empty(arrays[name].shape, arrays[name].dtype)  # rows first, however the oracle's lie
            driver.to_host(got.ctypes.data, memory[name], got.nbytes, stream)
            driver.wait(stream)
            equal &= np.array_equal(got, arrays[name])
        for pointer in memory.values():
            driver.free(pointer)
        return equal

    def _function(self, module: int, name: str, shared: int) -> int:
        function = self.driver.function(module, name)
        if shared > SHARED:
            self.driver.allow_shared(function, shared)
        return function

    def _random(self, size: int) -> int:
        """Memory of random bytes: a card is faster on zeros."""
        content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        pointer = self.driver.allocate(size)
        self.driver.to_device(pointer, content.ctypes.data, size, self.stream)
        self.driver.wait(self.stream)
        return pointer

    def _microseconds(self, launches: list[Launch]) -> float:
        driver, stream = self.driver, self.stream
        driver.begin_capture(stream)
        for kernel, grid, block, shared, pointers in launches:
            driver.launch(kernel, grid, block, shared, stream, pointers)
        graph = driver.end_capture(stream)
        first, last = driver.event(), driver.event()
        times = []
        for _ in range(ROUNDS + 1):
            driver.launch_graph(graph, stream)  # what is timed waits behind it, already on the GPU
            driver.record(first, stream)
            driver.launch_graph(graph, stream)
            driver.record(last, stream)
            driver.wait(stream)
            times.append(driver.microseconds(first, last))
        driver.destroy_graph(graph)
        driver.destroy_event(first)
        driver.destroy_event(last)
        return min(times[1:])
