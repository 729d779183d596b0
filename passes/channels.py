"""Layers with a constant weight, seen by channel: which axis of the weight belongs to which axis of the data.

==================  ===================  =================  ============
operator            weight               channels of input  of output
==================  ===================  =================  ============
conv1d, conv2d      (O, C/groups, ...)   axis 1             axis 1
convNd_transpose    (C, O/groups, ...)   axis 1             axis 1
matmul              (K, N)               axis -1            axis -1
==================  ===================  =================  ============
"""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.passes.base import array, constant, dtype_of, op_name, shape_of, with_args

CONVOLUTIONS = ("nn.conv1d", "nn.conv2d", "nn.conv1d_transpose", "nn.conv2d_transpose")
_LAYOUTS = {"NCW": ("OIW", "IOW"), "NCHW": ("OIHW", "IOHW")}


def is_layer(value: relax.Expr | None) -> bool:
    """Whether ``value`` is a float32 convolution, or such a matmul whose right operand is a constant matrix."""
    if op_name(value) not in (*CONVOLUTIONS, "matmul") or dtype_of(value) != "float32":
        return False
    if op_name(value) in CONVOLUTIONS:
        return True
    return array(value.args[1]) is not None and len(shape_of(value)) >= 2 and len(shape_of(value.args[1])) == 2


def why_not(layer: relax.Call) -> str | None:
    """Why the weight of a layer cannot be rewritten, None if it can."""
    return "the weight is not a constant" if array(layer.args[1]) is None else unknown_layout(layer)


def unknown_layout(layer: relax.Call) -> str | None:
    """Why the axes of a layer are not as in the table above, None if they are."""
    if op_name(layer) in CONVOLUTIONS:
        attrs = layer.attrs
        if attrs.kernel_layout not in _LAYOUTS.get(attrs.data_layout, ()) or attrs.out_layout != attrs.data_layout:
            return f"layout {attrs.data_layout}, {attrs.kernel_layout}"
    return None


def channel_axis(layer: relax.Call) -> int:
    """The axis of channels, in the input and in the output of a layer."""
    return len(shape_of(layer)) - 1 if op_name(layer) == "matmul" else 1


def out_channels(layer: relax.Call) -> int:
    return shape_of(layer)[channel_axis(layer)]


def in_channels(layer: relax.Call) -> int:
    return shape_of(layer.args[0])[-1 if op_name(layer) == "matmul" else 1]


def bias(vector: np.ndarray, layer: relax.Call) -> relax.Expr:
    """A bias (O,) as the constant that the canonical ``add`` behind a layer has: (1, O, 1, 1), (1, O, 1) or (N,)."""
    trailing = len(shape_of(layer)) - 2
    return constant(vector if op_name(layer) == "matmul" else vector.reshape(1, -1, *[1] * trailing))


def by_channel(values: np.ndarray, rank: int, axis: int, channels: int) -> np.ndarray | None:
    """(channels,) if broadcasting ``values`` to a tensor of this rank gives one number for each channel, else None.

    None too if it would broadcast the tensor itself (more axes, or an extent where the tensor has 1).
    """
    if values.ndim > rank:
        return None
    shape = (1,) * (rank - values.ndim) + values.shape
    if any(extent != 1 for i, extent in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(values.reshape(-1), (channels,)).astype(np.float64)


def scale_outputs(layer: relax.Call, scale: np.ndarray) -> relax.Call:
    """A layer whose output is ``layer * scale``, scale (O,)."""
    groups, rows, columns = _grouped(layer)
    scale = scale.reshape(groups.shape[0], -1)
    return _with_weight(layer, groups * np.expand_dims(scale, [i for i in range(groups.ndim) if i not in (0, columns)]))


def scale_inputs(layer: relax.Call, scale: np.ndarray) -> relax.Call:
    """A layer that gives on ``x`` what ``layer`` gives on ``x * scale``, scale (C,)."""
    groups, rows, columns = _grouped(layer)
    scale = scale.reshape(groups.shape[0], -1)
    return _with_weight(layer, groups * np.expand_dims(scale, [i for i in range(groups.ndim) if i not in (0, rows)]))


def response(layer: relax.Call, shift: np.ndarray) -> np.ndarray:
    """The output (O,) of a layer on an input that is ``shift`` (C,) everywhere; convolutions: away from borders."""
    groups, rows, columns = _grouped(layer)
    shift = np.expand_dims(shift.reshape(groups.shape[0], -1), [i for i in range(groups.ndim) if i not in (0, rows)])
    return (groups * shift).sum(axis=tuple(i for i in range(groups.ndim) if i not in (0, columns))).reshape(-1)


def _grouped(layer: relax.Call) -> tuple[np.ndarray, int, int]:
    """The weight in float64 with an axis for groups in front, and the axes of inputs and outputs (of a group)."""
    weight = array(layer.args[1]).astype(np.float64)
    if op_name(layer) == "matmul":
        return weight[None], 1, 2
    groups = int(layer.attrs.groups)
    grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return (grouped, 1, 2) if op_name(layer).endswith("transpose") else (grouped, 2, 1)


def _with_weight(layer: relax.Call, weight: np.ndarray) -> relax.Call:
    return with_args(layer, layer.args[0], constant(weight.reshape(shape_of(layer.args[1]))))
