"""A simulation gives the bits of a build, whatever the formats; only what differs is computed again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qcompile as qc
from qcompile.calibrate import random_data
from qcompile.model import Model
from qcompile.simulate.simulate import simulate
from qcompile.simulate.simulation import BASE, PREFIX, Simulation
from tests.building import cnn, with_island
from tests.e2e.small_models import MODELS
from tests.frontend.onnx_models import model, node, weights
from tests.simulate.agreement import assert_agree


def residuals() -> onnx.ModelProto:
    """A residual that another convolution reads too, and one that is read as a residual alone."""
    nodes = [
        node("Conv", "x w0", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a w1", "b", pads=[1, 1, 1, 1]),
        node("Add", "b a", "c"),
        node("Conv", "c w2", "d"),
        node("Conv", "c w3", "e"),
        node("Add", "d e", "f"),
        node("Relu", "f", "g"),
        node("Conv", "g w4", "y"),
    ]
    shapes = {"w0": (8, 8, 3, 3), "w1": (8, 8, 3, 3), "w2": (8, 8, 1, 1), "w3": (8, 8, 1, 1), "w4": (4, 8, 1, 1)}
    constants = {name: weights(*shape, seed=i) / 5 for i, (name, shape) in enumerate(shapes.items())}
    return model(nodes, {"x": (1, 8, 6, 6)}, constants=constants)


def large_sums() -> onnx.ModelProto:
    """Sums of 2048 products of codes that are all near the ends of their ranges: beyond 2^24."""
    return model([node("MatMul", "x w", "y")], {"x": (2, 2048)}, constants={"w": np.ones((2048, 3), np.float32)})


MADE = {"cnn": cnn, "island": with_island, "residuals": residuals, "large sums": large_sums}
SOME = ("split", "concat of odd channels", "input is output")
_made: dict[str, tuple[Model, Simulation, list]] = {}


def simulated(name: str, folder) -> tuple[Model, Simulation, list]:
    """The model, its simulation and samples; made once."""
    if name not in _made:
        path = folder / "model.onnx"
        onnx.save({**MODELS, **MADE}[name](), path)
        imported = qc.import_onnx(path)
        feeds = list(random_data(imported.inputs, 4))
        plan = qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8")
        _made[name] = imported, simulate(imported, plan), feeds
    return _made[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    yield tmp_path_factory.mktemp("models")
    _made.clear()


@pytest.mark.parametrize("name", (*MADE, *SOME))
def test_one_format_for_all(name, folder):
    imported, simulation, feeds = simulated(name, folder)
    for format in ("fp32", "int8"):
        assert_agree(imported, simulation, dict.fromkeys(simulation.layers, format), feeds[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_odd_models(name, folder):
    imported, simulation, feeds = simulated(name, folder)
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 0.7, 1.0):
        assert_agree(imported, simulation, {n: "int8" for n in simulation.layers if rng.random() < share}, feeds[0])
    _made.clear()


@settings(max_examples=3, deadline=None)
@given(chosen=st.sets(st.integers(0, 9)), name=st.sampled_from(["cnn", "residuals"]))
def test_any_formats(chosen, name, folder):
    imported, simulation, feeds = simulated(name, folder)
    formats = {layer: "int8" for i, layer in enumerate(simulation.layers) if i in chosen}
    assert_agree(imported, simulation, formats, feeds[1])


def test_sums_beyond_what_float32_holds(folder):
    imported, simulation, _ = simulated("large sums", folder)
    plan = simulation.space.plans["int8"].tensors["x"]
    x = np.full((2, 2048), plan.scale[0] * (255 - plan.zero_point[0]), np.float32)
    x[0, 0] = 0
    assert 2047 * 127 * (255 - plan.zero_point[0]) > 2**24
    assert_agree(imported, simulation, {"y": "int8"}, {"x": x})


def test_a_later_program_builds_upon_an_earlier_one(folder):
    """Only what lies behind the changed layer is computed, with the same results; what was kept stays as it was."""
    _, simulation, feeds = simulated("residuals", folder)
    for feed in feeds:
        whole = {name: simulation.run(feed, {name: "int8"})["y"] for name in simulation.layers}
        simulation.load(feed)
        base = simulation.program({}, area=BASE)
        simulation.execute(base)
        for name in simulation.layers:
            program = simulation.program({name: "int8"}, since=base)
            simulation.execute(program)
            np.testing.assert_array_equal(simulation.results(program)["y"], whole[name])
        last = simulation.program({simulation.layers[-1]: "int8"}, since=base)
        assert len(last.rows) == 3 < len(base.rows)  # its codes, itself, and the output as the caller has it


def test_formats_that_grow_layer_by_layer(folder):
    _, simulation, feeds = simulated("cnn", folder)
    names = simulation.layers
    wanted = [simulation.run(feeds[0], dict.fromkeys(names[: i + 1], "int8"))["y"].copy() for i in range(len(names))]
    simulation.load(feeds[0])
    last = simulation.program({}, area=PREFIX)
    simulation.execute(last)
    for i, values in enumerate(wanted):
        last = simulation.program(dict.fromkeys(names[: i + 1], "int8"), area=PREFIX, since=last)
        simulation.execute(last)
        np.testing.assert_array_equal(simulation.results(last)["y"], values)


def test_three_formats_beside_each_other(tmp_path):
    """Products with int4 weights by groups, too; a layer that cannot have them is int8 then."""
    nodes = [node("MatMul", "x w0", "a"), node("Relu", "a", "b"), node("MatMul", "b w1", "c"), node("MatMul", "c w2")]
    constants = {"w0": weights(64, 32), "w1": weights(32, 40, seed=1), "w2": weights(40, 8, seed=2)}
    onnx.save(model(nodes, {"x": (4, 64)}, constants=constants), tmp_path / "m.onnx")
    imported = qc.import_onnx(tmp_path / "m.onnx")
    feeds = list(random_data(imported.inputs, 3))
    stats = qc.calibrate(imported, feeds)
    plans = {format: qc.plan_uniform(imported, stats, format) for format in ("int8", "w4a8")}
    assert [plans["w4a8"].layers[name].format for name in ("b", "c", "y")] == ["w4a8", "w4a8", "int8"]
    simulation = simulate(imported, plans)
    for choice in ("w4a8 w4a8 w4a8", "w4a8 int8 fp32", "fp32 w4a8 int8", "int8 fp32 w4a8"):
        assert_agree(imported, simulation, dict(zip(simulation.layers, choice.split(), strict=True)), feeds[0])


def test_constants_of_a_layer_are_not_those_of_islands_before_it(tmp_path):
    nodes = [
        node("MatMul", "x w0", "a"),
        node("Add", "a k", "b"),
        node("CumSum", "b axis", "c"),
        node("Add", "c k", "d"),
        node("MatMul", "d w1", "y"),
    ]
    constants = {"w0": weights(8, 512), "w1": weights(512, 4, seed=1), "k": weights(6, 512), "axis": np.array(1)}
    onnx.save(model(nodes, {"x": (6, 8)}, constants=constants), tmp_path / "m.onnx")
    imported = qc.import_onnx(tmp_path / "m.onnx")
    feeds = list(random_data(imported.inputs, 2))
    simulation = simulate(imported, qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8"))
    (found,) = simulation.weights("y")
    np.testing.assert_array_equal(np.sort(found[found != 0]), np.sort(constants["w1"].ravel()))
    assert 4 * 512 <= simulation.weight_bytes("y", "int8") < simulation.weight_bytes("y", "fp32")


def test_it_can_be_loaded_again_without_the_compiler(folder, tmp_path):
    imported, first, feeds = simulated("cnn", folder)
    simulate(imported, first.space.plans, out=tmp_path / "kept")
    again = Simulation(tmp_path / "kept")
    formats = dict.fromkeys(first.layers[:2], "int8")
    np.testing.assert_array_equal(again.run(feeds[0], formats)["y"], first.run(feeds[0], formats)["y"])


def test_refusals(folder):
    _, simulation, feeds = simulated("cnn", folder)
    with pytest.raises(qc.QCompileError, match="no layer 'r' to choose a format for"):
        simulation.run(feeds[0], {"r": "int8"})
    with pytest.raises(qc.QCompileError, match="it cannot be int4; choose one of fp32, int8"):
        simulation.run(feeds[0], {"r0": "int4"})
    with pytest.raises(qc.QCompileError, match="the model has no input 'z'"):
        simulation.run({"z": feeds[0]["x"]})
    with pytest.raises(qc.QCompileError, match=r"the model takes float32 \(1, 3, 12, 12\)"):
        simulation.run({"x": feeds[0]["x"][0]})


def test_nothing_is_left_of_one_that_cannot_be(tmp_path, monkeypatch):
    def fail(description):
        raise MemoryError

    imported = qc.import_onnx(cnn())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pickle.dumps", fail)
    with pytest.raises(MemoryError):
        simulate(imported, qc.plan_uniform(imported, None, "fp32"))
    assert not list(tmp_path.iterdir())
