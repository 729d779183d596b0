"""Every distinct product of a model with many a tile: kernels to be timed one by one, and a kernel that is the peak."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qcompile as qc
import qcompile.passes.lower_cuda_weighted as layers
from benchmarks.cuda.timing import ARCH, CODE
from qcompile.model import Model
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.scaled import model_for
from qcompile.targets.cuda.architectures import architecture
from qcompile.targets.cuda.compiler import find_compiler
from qcompile.targets.cuda.contract import contract, problem_of
from qcompile.targets.cuda.program import templates
from qcompile.targets.cuda.text import NAME
from qcompile.targets.cuda.tile_time import TILES, choose_tile, cycles
from qcompile.targets.cuda.tiles import tiles

NEAREST = 14  # tiles of each product, those with the fewest predicted cycles
CHAINS, TURNS = 16, 4096  # independent products a warp has under way, and how often
PEAK = f"""
QC_KERNEL(256) peak(const u8* x, u8* y) {{
  u32 a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = reinterpret_cast<const u32*>(x)[threadIdx.x + i];
  for (int i = 0; i < 2; ++i) b[i] = reinterpret_cast<const u32*>(x)[threadIdx.x + 8 + i];
  int sums[{CHAINS}][4] = {{}};
  QC_ROLLED
  for (int turn = 0; turn < {TURNS}; ++turn)
    QC_UNROLL
    for (int c = 0; c < {CHAINS}; ++c) multiply<false>(sums[c], a, b);
  int total = 0;
  QC_UNROLL
  for (int c = 0; c < {CHAINS}; ++c) total += sums[c][0] + sums[c][1] + sums[c][2] + sums[c][3];
  reinterpret_cast<int*>(y)[threadIdx.x] = total;
}}
"""


def write_sweep(model: Model, plan: qc.QuantPlan, out: Path, arch: str) -> None:
    """The code, and ``sweep.json``: a row for each kernel, with the bytes of its arguments."""
    form = run_passes(model_for(model, plan).module, form_passes(plan, model.layers))
    with _recorded() as calls:
        lower_cuda(form)
    gpu = architecture(arch)
    rows: list[dict[str, Any]] = []
    texts: dict[str, None] = {}
    for spec, shape, weight, bias, multiplier, x, y, residual in calls:
        problem = problem_of(shape, weight.shape, x)
        best = choose_tile(problem, gpu)
        others = (tile for tile in TILES if tile.fits(problem, gpu))
        near = sorted({*tiles(problem, gpu), *others}, key=lambda tile: cycles(problem, tile, gpu))[:NEAREST]
        for tile in dict.fromkeys((best, *near)):
            kernel, constants = contract(spec, shape, weight, bias, multiplier, x, y, residual, tile, gpu)
            if kernel.text in texts:
                continue
            name = f"product_{len(texts)}"
            texts[kernel.text] = None
            sizes = [x.nbytes, *(c.nbytes for c in constants), *([residual.nbytes] if residual else []), y.nbytes]
            o, i, kh, kw = weight.shape
            rows.append(
                {
                    "kernel": name,
                    "layer": f"{kh}x{kw} {i} -> {o}, {shape.images}x{shape.out_height}x{shape.out_width}"
                    + (" + residual" if residual else ""),
                    "tile": str(tile),
                    "predicted": cycles(problem, tile, gpu) / gpu.hertz * 1e6,
                    "default": tile == best,
                    "macs": shape.pixels * o * i * kh * kw,
                    "grid": kernel.grid,
                    "block": kernel.block,
                    "shared": kernel.shared,
                    "arguments": sizes,
                }
            )
    source = templates() + PEAK + "\n".join(t.replace(NAME, r["kernel"]) for t, r in zip(texts, rows, strict=True))
    out.mkdir(parents=True, exist_ok=True)
    code = find_compiler().cubin(source, arch).code
    (out / ARCH).write_text(arch + "\n")
    (out / CODE).write_bytes(gzip.compress(code, mtime=0))
    peak = {"block": 256, "products": 8 * CHAINS * TURNS, "macs": 16 * 8 * 32}
    (out / "sweep.json").write_text(json.dumps({"peak": peak, "rows": rows}, indent=1) + "\n")


@contextmanager
def _recorded() -> Iterator[list[tuple[Any, ...]]]:
    """The arguments that lowering calls ``contract`` with."""
    calls: list[tuple[Any, ...]] = []

    def record(*arguments: Any, **options: Any) -> Any:
        if not any(value is not None for value in options.values()):  # of weights in groups
            calls.append(arguments[:8])
        return contract(*arguments, **options)

    layers.contract = record
    try:
        yield calls
    finally:
        layers.contract = contract
