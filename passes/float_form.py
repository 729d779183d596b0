"""The float form: one spelling for each meaning, so that what follows has little to recognise.

Afterwards convolutions and matrix products with constant weights are followed by at most one ``add`` of a constant,
bounds are ``nn.relu`` or ``clip``, shapes change by ``reshape``, global pooling is ``mean``, and an operator that
changes nothing is gone. Results differ from those of the model by float rounding at most.
"""

from __future__ import annotations

from qcompile.passes.canonicalize_arithmetic import canonicalize_arithmetic
from qcompile.passes.canonicalize_dense import canonicalize_dense
from qcompile.passes.canonicalize_pooling import canonicalize_pooling
from qcompile.passes.canonicalize_shapes import canonicalize_shapes
from qcompile.passes.crop_windows import crop_windows
from qcompile.passes.decompose_batch_norm import decompose_batch_norm
from qcompile.passes.fold_constants import fold_constants
from qcompile.passes.fold_input_scale import fold_input_scale
from qcompile.passes.fold_scale_shift import fold_scale_shift
from qcompile.passes.hoist_scales import hoist_scales
from qcompile.passes.merge_affine import merge_affine
from qcompile.passes.merge_common_subexpressions import merge_common_subexpressions
from qcompile.passes.merge_movement import merge_movement
from qcompile.passes.merge_pads import merge_pads
from qcompile.passes.remove_identities import remove_identities
from qcompile.passes.sink_transposes import sink_transposes
from qcompile.passes.turn_columns import turn_columns

TIDY = [
    # One way to write each thing; constants first, so that what they decide is visible.
    fold_constants,
    canonicalize_arithmetic,
    decompose_batch_norm,
    remove_identities,
    # Axes: transposes cancel before the rest of them turn into reshapes where they can.
    sink_transposes,
    canonicalize_shapes,
    merge_movement,
    remove_identities,
    canonicalize_dense,
    # Layers take up what stands around them.
    merge_pads,
    crop_windows,
    canonicalize_pooling,
    fold_scale_shift,
    hoist_scales,
    merge_affine,
    fold_input_scale,
    fold_scale_shift,  # the bias that a shift in front of a layer became, into the layer's own
    merge_common_subexpressions,
    # Kernels run along rows.
    turn_columns,
]
