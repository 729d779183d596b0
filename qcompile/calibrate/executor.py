"""Runs a float model and shows the tensors that a plan may quantize."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qcompile.model import Model

Executor = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]  # input feeds -> float32 tensors by name


def default_executor(model: Model) -> Executor:
    """The model compiled in float32 for this machine, giving the result of every layer by its name.

    What a layer keeps to itself (a convolution before its bias and activation) is fused away and never quantized, so it
    is not shown. Arrays are overwritten by the next call.
    """
    from tvm import relax

    from qcompile.compile import runnable
    from qcompile.graph import MainBuilder, read, substitute
    from qcompile.passes.chain import find_chains
    from qcompile.passes.pipeline import form_passes, run_passes
    from qcompile.plan import QuantPlan
    from qcompile.targets.select import select_target

    main = read(model.module)
    inner = {member for chain in find_chains(main) for member in chain.members[:-1]}
    builder = MainBuilder(main.params, model.module)
    copies: dict[relax.Var, relax.Expr] = {}
    for var, value in main.bindings:
        copies[var] = builder.emit(substitute(value, copies), var.name)
    shown = [
        copy
        for var, copy in copies.items()
        if var not in inner and isinstance(copy.ty, relax.TensorType) and str(copy.ty.dtype) == "float32"
    ]
    return runnable(run_passes(builder.module(shown), form_passes(QuantPlan())), select_target("native"))


def scaled_executor(run: Executor, model: Model, scales: Mapping[str, tuple[float, ...]]) -> Executor:
    """What the model with these ``channel_scales`` gives, from what ``run`` gives of the model as it is."""
    from qcompile.graph import read
    from qcompile.passes.equalize_channels import factors

    times = factors(read(model.module), scales)

    def scaled(feeds: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        tensors = run(feeds)
        products = {name: tensors[of] * factor for name, (of, factor) in times.items() if of in tensors}
        return {**tensors, **products}

    return scaled if scales else run
