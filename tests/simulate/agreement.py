"""A simulation beside builds of the same configurations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import relax

from qcompile import graph
from qcompile.compile import runnable
from qcompile.model import Model
from qcompile.ops import Affine
from qcompile.passes.assign_storage import called_spec
from qcompile.passes.base import dtype_of
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.reference.arithmetic import dequantize
from qcompile.simulate.simulation import BASE, Simulation
from qcompile.targets.select import select_target

Arrays = Mapping[str, np.ndarray]


def built(imported: Model, simulation: Simulation, formats: Mapping[str, str], feed: Arrays) -> dict[str, np.ndarray]:
    """Every tensor, as float32 if it is codes, of a build of the configuration's plan; outputs too."""
    module = run_passes(imported.module, form_passes(simulation.plan(formats), imported.layers))
    main = graph.read(module)
    builder = graph.MainBuilder(main.params, module)
    new: dict[relax.Var, relax.Var] = {}
    meaning: dict[str, Affine] = {}
    for var, value in main.bindings:
        new[var] = builder.emit(graph.substitute(value, new), var.name)
        spec = called_spec(module, value)
        if spec is not None and dtype_of(var) in ("uint8", "int8"):
            out = spec.epilogue.out if hasattr(spec, "epilogue") else getattr(spec, "out", None)
            if out is not None:
                meaning[var.name] = out
    tensors = [var for var in new.values() if isinstance(var.ty, relax.TensorType)]
    results = runnable(builder.module(tensors), select_target("native"))(feed)
    coded = {name: dequantize(results[name], q) for name, q in meaning.items()}
    return coded | {name: array for name, array in results.items() if array.dtype not in (np.uint8, np.int8)}


def simulated(simulation: Simulation, formats: Mapping[str, str], feed: Arrays) -> dict[str, np.ndarray]:
    """The results of all layers, and the outputs."""
    simulation.load(feed)
    program = simulation.program(formats, area=BASE)
    simulation.execute(program)
    every = simulation.program(formats, area=BASE, layers=simulation.layers)
    simulation.execute(every)
    return {**{name: simulation.values(every, name) for name in simulation.layers}, **simulation.results(program)}


def assert_agree(
    imported: Model, simulation: Simulation, formats: Mapping[str, str], feed: Arrays, islands: bool = False
) -> None:
    """Bit for bit, in every layer and output.

    islands: the model has float islands that are fused in other ways, so that a last bit of theirs may differ, and then
    now and then a code behind them: of a thousand results one may, by a step, and outputs agree within rounding.
    """
    wanted, got = built(imported, simulation, formats, feed), simulated(simulation, formats, feed)
    for name, values in got.items():
        if name not in wanted:
            continue
        assert values.dtype == wanted[name].dtype
        if islands:
            far = np.abs(values - wanted[name]) > 1e-5 * np.abs(wanted[name]).max()
            assert far.mean() <= 1e-3, name
        else:
            np.testing.assert_array_equal(values, wanted[name], err_msg=name)
