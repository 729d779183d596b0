"""Convolutions and matrix products on Tensor Cores: ``device/contract.cuh`` with the shapes of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from qcompile.ops import Conv2d, Dense, Epilogue
from qcompile.reference.narrow import to_bits
from qcompile.targets.cuda.architectures import Architecture, architecture
from qcompile.targets.cuda.constants import has_small_sums, pack_groups, pack_weights, padded, shifted_bias
from qcompile.targets.cuda.elementwise import epilogue_function
from qcompile.targets.cuda.storage import NARROW, Storage
from qcompile.targets.cuda.text import NAME, Kernel, signature
from qcompile.targets.cuda.tile_time import choose_tile, cycles
from qcompile.targets.cuda.tiles import Problem, Tile

SM_80 = architecture("sm_80")
MORE_REGISTERS = 64  # that a thread takes where it makes bytes of int4 weights, or takes float32 numbers apart
_INT4_CYCLES = 3  # of a multiprocessor beside each product of 16 x 8 x 32: 128 sums are scaled, 64 a cycle; codes made


@dataclass(frozen=True, slots=True)
class Shape:
    """An image convolution, or a matrix product as one of images of one pixel: x (images, height, width, pitch)."""

    images: int
    height: int
    width: int
    out_height: int
    out_width: int
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def pixels(self) -> int:
        return self.images * self.out_height * self.out_width

    def constants(self) -> dict[str, int]:
        names = ("TOP", "LEFT", "BOTTOM", "RIGHT")
        return {
            **{"IMAGES": self.images, "H": self.height, "W": self.width, "OH": self.out_height, "OW": self.out_width},
            **dict(zip(("KH", "KW"), self.window, strict=True)),
            **dict(zip(("SH", "SW"), self.strides, strict=True)),
            **dict(zip(("DH", "DW"), self.dilation, strict=True)),
            **dict(zip(names, self.padding, strict=True)),
        }


def conv_shape(spec: Conv2d, window: tuple[int, int], x: Storage, out: Storage) -> Shape:
    """x, out: (N, C, H, W) or (N, C, W)."""
    n, _, *spatial = x.shape
    height, width = spatial if len(spatial) == 2 else (1, *spatial)
    *above, out_width = out.shape[2:]
    out_height = above[0] if above else 1
    return Shape(n, height, width, out_height, out_width, window, spec.strides, spec.padding, spec.dilation)


def problem_of(shape: Shape, weight: Sequence[int], x: Storage) -> Problem:
    """What tiles share out. weight: shape of (O, C/groups, KH, KW); groups are those that ``contract`` has."""
    outputs, inputs, kh, kw = weight
    groups = x.channels // inputs
    pitch = x.item_bytes * (x.pitch if groups == 1 else inputs)
    both = x.item_bytes * x.pitch | pitch
    piece = 16 if both % 16 == 0 else 8 if both % 8 == 0 else 4
    return Problem(shape.pixels, outputs // groups, groups, kh * kw * pitch, piece)


def contract(
    spec: Conv2d | Dense,
    shape: Shape,
    weight: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    tile: Tile | None = None,
    arch: Architecture = SM_80,
    group_scale: np.ndarray | None = None,
) -> tuple[Kernel, tuple[np.ndarray, ...]]:
    """The kernel and its constants: buffers x, constants, residual (if there is one), y.

    weight: (O, I, KH, KW), I of a group; groups as ``has_own_groups`` says, or made one. tile: instead of the one
    that ``choose_tile`` takes for ``arch``. group_scale: beside int4 weights, as in ``ops.Conv2d``.
    """
    product = _product(shape, weight, x, out, residual, tile, arch, MORE_REGISTERS if spec.group else 0)
    if group_scale is not None:
        product = _grouped(product, group_scale, spec.group, arch)
        weight = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1) * np.repeat(group_scale, spec.group, axis=1)
    small = has_small_sums(bias, weight, spec.x)
    flags = {**_flags(spec, residual), "SMALL": small, "SCALED": True}
    members = f"""{constants_text({**product.constants, "ZERO": spec.x.zero_point}, flags)}
  typedef int Sum;
  {_step(f"multiply<{str(spec.x.dtype == 'int8').lower()}>", "int")}
  QC_DEVICE_MEMBER static float value(int sum, int bias, float factor) {{
    return scaled_sum<SMALL>(sum, bias, factor);
  }}"""
    parameters = ["const i8* w", "const int* bias", "const float* multiplier"]
    text = instantiated("contract", parameters, members, spec.epilogue, x, out, residual, product.launch)
    arrays = (
        product.weights,
        product.padded(shifted_bias(bias, weight, spec.x)),
        product.padded(multiplier.astype(np.float32)),
    )
    return product.kernel(text, "mma" if group_scale is None else "mma int4"), arrays


def contract_floats(
    spec: Conv2d | Dense,
    shape: Shape,
    weight: np.ndarray,
    bias: np.ndarray,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    tile: Tile | None = None,
    arch: Architecture = SM_80,
    multiplier: np.ndarray | None = None,
) -> tuple[Kernel, tuple[np.ndarray, ...]]:
    """``contract`` of floats: buffers x, constants, residual (if there is one), y.

    weight: its numbers, float32. multiplier: of each channel's sum, (O,), before the bias is added.

    Every product of narrow floats is exact in float32. In which order, and with how many bits, a Tensor Core adds them
    up is not documented, so that results are near the oracle's, not equal.
    """
    word = NARROW.get(x.dtype, "f32")
    bits = to_bits(weight, x.dtype) if x.is_narrow else weight.astype(np.float32)
    product = _product(shape, bits, x, out, residual, tile, arch, 0 if x.is_narrow else MORE_REGISTERS)
    flags = {**_flags(spec, residual), "SCALED": multiplier is not None}
    total = "total" if multiplier is None else "product(total, factor)"
    members = f"""{constants_text({**product.constants, "ZERO": 0}, flags)}
  typedef float Sum;
  {_step(f"multiply_{word}", "float")}
  QC_DEVICE_MEMBER static float value(float total, float bias, float factor) {{ return sum({total}, bias); }}"""
    vectors = [bias] if multiplier is None else [bias, multiplier]
    parameters = ["const i8* w", "const float* bias", "const float* multiplier"][: 1 + len(vectors)]
    text = instantiated("contract", parameters, members, spec.epilogue, x, out, residual, product.launch)
    arrays = (product.weights, *(product.padded(vector.astype(np.float32)) for vector in vectors))
    return product.kernel(text, f"mma {word}"), arrays


def _flags(spec: Conv2d | Dense, residual: Storage | None) -> dict[str, bool]:
    return {"RESIDUAL": residual is not None, "CODES": spec.epilogue.out is not None}


def _step(function: str, sum: str) -> str:
    """The member that multiplies fragments: ``function`` of ``device/machine.cuh``."""
    fragments = f"{sum} (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]"
    return f"QC_DEVICE_MEMBER static void step({fragments}) {{ {function}(sums, x, w); }}"


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """What layers of any dtype have in common."""

    constants: dict[str, int]
    weights: np.ndarray
    channels: int
    groups: int
    problem: Problem
    tile: Tile
    launch: str
    cycles: float

    def padded(self, values: np.ndarray) -> np.ndarray:
        return padded(values, self.channels, self.groups)

    def kernel(self, text: str, name: str) -> Kernel:
        note = f"{name} {self.tile}"
        blocks, tile = self.problem.blocks(self.tile), self.tile
        return Kernel(text, blocks, tile.threads, tile.shared_bytes, note, self.cycles)


def _product(
    shape: Shape,
    weight: np.ndarray,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    tile: Tile | None,
    arch: Architecture,
    more: int,
) -> _Product:
    """more: registers that a thread needs beside those of the tile."""
    outputs, inputs = weight.shape[:2]
    groups, item = x.channels // inputs, x.item_bytes
    pitch, group_outputs = (x.pitch, out.pitch) if groups == 1 else (inputs, outputs // groups)
    problem = problem_of(shape, weight.shape, x)
    rated = arch.rated(x.dtype)
    tile = tile or choose_tile(problem, rated, more)
    packed = pack_weights(weight, pitch, groups, tile)
    channels, length = packed.shape
    constants = {
        **shape.constants(),
        **{"PIXELS": shape.pixels, "C": item * x.pitch, "CG": item * pitch},
        **{"O": outputs, "OG": group_outputs, "OC": out.pitch, "RC": residual.pitch if residual else 0},
        **{"K": length, "CHANNELS": channels, "GROUP_TILES": channels // groups // tile.channels},
        **{"BM": tile.pixels, "BN": tile.channels, "WARPS_M": tile.warps_m, "WARPS_N": tile.warps_n},
        "STAGES": tile.stages,
        "SLICES": tile.slices,
        "GROUP": 0,
    }
    taken = cycles(problem, tile, rated)
    launch = tile.launch(problem.piece, arch, more)
    return _Product(constants, packed, channels, groups, problem, tile, launch, taken)


def _grouped(product: _Product, group_scale: np.ndarray, group: int, arch: Architecture) -> _Product:
    """With int4 weights. Parts of groups that are multiplied at once count as groups, all with the same scale."""
    problem = product.problem
    products = problem.groups * problem.pixels * problem.channels * problem.length / 4096
    taken = product.cycles + products * _INT4_CYCLES / arch.processors
    size, (outputs, groups) = gcd(group, 32), group_scale.shape
    scales = np.zeros((outputs, product.constants["K"] // size), np.uint8)
    scales[:, : groups * group // size] = np.repeat(group_scale, group // size, axis=1)
    packed = pack_groups(product.weights, scales, product.groups)
    constants = {**product.constants, "GROUP": size}
    return replace(product, constants=constants, weights=packed, cycles=taken)


def constants_text(numbers: dict[str, int], flags: dict[str, bool]) -> str:
    """The constants of what a template of ``device/`` is instantiated with."""
    integers = ", ".join(f"{name} = {value}" for name, value in numbers.items())
    booleans = ", ".join(f"{name} = {str(flag).lower()}" for name, flag in flags.items())
    return f"static constexpr int {integers};\n  static constexpr bool {booleans};"


def instantiated(
    template: str,
    parameters: Sequence[str],
    members: str,
    epilogue: Epilogue,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    launch: str,
) -> str:
    """A kernel over x, what ``parameters`` declare, [residual], y: a template of ``device/``.

    members: of the structure that it is instantiated with. launch: how many threads it has, "QC_KERNEL(128)".
    """
    element = residual.type if residual else "u8"
    names = [parameter.rpartition(" ")[2] for parameter in parameters]
    names += ["static_cast<const float*>(nullptr)"] * ("multiplier" not in names)
    names.append("r" if residual else f"static_cast<const {element}*>(nullptr)")
    declared = [f"const {x.type}* x", *parameters, *[f"const {element}* r"] * bool(residual), f"{out.type}* y"]
    return f"""struct {NAME}_shape {{
  {members}
  {epilogue_function(epilogue, out, residual)}
}};
{launch} {NAME}({signature(declared)}) {{
  {template}<{NAME}_shape>(reinterpret_cast<const u8*>(x), {", ".join(names)}, y);
}}
"""
