"""What layers cost on a GPU that is not at hand: the launches of a build in each format, timed by a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from qcompile.analyze.costs import Costs, Seconds
from qcompile.assign.structure import Structure
from qcompile.assign.table import FLOAT
from qcompile.model import Model
from qcompile.passes.lower_cuda import predict_launches
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.plan import QuantPlan
from qcompile.targets.cuda.architectures import architecture
from qcompile.targets.cuda.launch_time import LAUNCH
from qcompile.targets.cuda.rows import CudaTarget

_CASTS = ("quantize", "dequantize", "relayout")  # operators of launches that stand between the formats of layers


def gpu_costs(model: Model, plans: Mapping[str, QuantPlan], structure: Structure, target: CudaTarget) -> Costs:
    """See ``targets.cuda.launch_time``. plans: by format, without fp32. Of several architectures, the newest."""
    newest = target.each()[-1]
    chains = {chain.name for chain in structure.chains}
    layers: dict[tuple[str, str], Seconds] = {}
    rest = 0.0
    for name, plan in {FLOAT: QuantPlan(), **plans}.items():
        form = run_passes(model.module, form_passes(plan, model.layers))
        taken: dict[str, float] = defaultdict(float)
        for note, seconds in predict_launches(form, newest):
            if note.op not in _CASTS:
                taken[note.output.partition("~")[0]] += seconds
        for layer, seconds in taken.items():
            if layer in chains and (name == FLOAT or plan.layers[layer].format == name):
                layers[layer, name] = Seconds(seconds, False)
        if name == FLOAT:
            rest = sum(seconds for output, seconds in taken.items() if output not in chains)
    return Costs(layers, rest, architecture(newest.architecture).memory, LAUNCH)
