"""From float form to integer form: the passes, in order."""

from __future__ import annotations

from collections.abc import Mapping

import tvm

from qcompile.formats import format_of
from qcompile.model import Layer
from qcompile.passes.fold_channel_shuffle import fold_channel_shuffle
from qcompile.passes.fold_data_movement import fold_data_movement
from qcompile.passes.fold_elementwise import fold_elementwise
from qcompile.passes.fold_gather import fold_gather
from qcompile.passes.fold_pooling import fold_pooling
from qcompile.passes.fold_requantize import fold_requantize
from qcompile.passes.fold_weighted import fold_weighted
from qcompile.passes.fuse_float import fuse_float
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.plan import QuantPlan


def integer_form(plan: QuantPlan, layers: Mapping[str, Layer] | None = None) -> list[tvm.ir.transform.Pass]:
    """The passes that carry out a plan. layers: ``Model.layers``, for the names in reports.

    Afterwards ``main`` has composites, operators that move codes, and what stayed in float: see ``passes.islands``.
    """
    nodes = {name: layer.node for name, layer in (layers or {}).items()}
    keep = {name for name, layer in plan.layers.items() if not layer.codes}
    groups = {name: plan.tensors[f"{name}.weight"].group for name in plan.layers if f"{name}.weight" in plan.tensors}
    return [
        insert_qdq(plan),
        # What stands between two layers is gone before layers are looked for.
        fold_data_movement,
        fold_requantize(nodes),
        fold_channel_shuffle(nodes),
        # Each kind of layer by itself.
        fold_gather(nodes, {name for name in keep if format_of(plan.layers[name].format).weights == "float32"}, groups),
        fold_weighted(nodes, keep, groups),
        fold_pooling(nodes, keep),
        fold_elementwise(nodes, keep),
        # What the plan left in float32.
        fuse_float(nodes, groups),
    ]
