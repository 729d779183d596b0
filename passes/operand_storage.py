"""In which storage a layer wants its operands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tvm import relax

from qcompile.passes.assign_storage import FEW_CHANNELS
from qcompile.passes.base import dtype_of, shape_of
from qcompile.targets.storage import BLOCK, Storage

if TYPE_CHECKING:
    from qcompile.passes.lower_layers import Lowering

NO_BORDER = (0, 0, 0, 0)


def home(lowering: Lowering, tensor: relax.Expr) -> Storage:
    """Storage that was assigned to a tensor; plain for a constant."""
    return lowering.home[tensor] if isinstance(tensor, relax.Var) else plain(tensor)


def plain(tensor: relax.Expr) -> Storage:
    return Storage(shape_of(tensor), dtype_of(tensor))


def beside(tensor: relax.Expr, lowering: Lowering, model: Storage) -> Storage:
    """Home of a tensor; for a constant image, the layout of the tensor beside it."""
    storage = home(lowering, tensor)
    if not isinstance(tensor, relax.Var) and model.blocked and len(storage.shape) == len(model.shape):
        return replace(storage, block=model.block)
    return storage


def blocked(storage: Storage, border: tuple[int, int, int, int] = NO_BORDER, fill: float = 0) -> Storage:
    """``storage`` itself if it is blocked and its border will do, else one that will."""
    enough = storage.blocked and all(have >= need for have, need in zip(storage.border, border, strict=True))
    if enough and (storage.fill == fill or not any(side > 0 for side in border)):
        return storage
    block = storage.block or (storage.shape[1] if storage.shape[1] <= FEW_CHANNELS else BLOCK)
    top, left, bottom, right = (max(0, side) for side in border)
    return Storage(storage.shape, storage.dtype, block, (top, left, bottom, right), fill)
