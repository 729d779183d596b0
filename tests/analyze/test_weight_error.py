"""How far rounding moves weights: of tables, by groups, of narrow floats."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile import graph
from qcompile.analyze.weight_error import weight_error
from qcompile.assign.structure import Structure
from qcompile.calibrate import random_data
from qcompile.plan import pack_moves
from tests.frontend.onnx_models import model, node, weights

CONSTANTS = {"t": weights(200, 32), "p": weights(1, 128, 32, seed=1), "w": weights(32, 24, seed=2)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(the model's layers by name, calibrated plans by format): words, positions and a product."""
    nodes = [node("Gather", "t i", "e"), node("Add", "e p", "x"), node("MatMul", "x w", "y")]
    path = tmp_path_factory.mktemp("error") / "model.onnx"
    onnx.save(model(nodes, {"i": (1, 128)}, constants=CONSTANTS, dtypes={"i": np.int64}), path)
    imported = qc.import_onnx(path)
    stats = qc.calibrate(imported, list(random_data(imported.inputs, 2)))
    plans = {name: qc.plan_uniform(imported, stats, name) for name in ("int8", "w4a8", "bf16", "fp16")}
    return {chain.name: chain for chain in Structure(graph.read(imported.module)).chains}, plans


def rounded(values: np.ndarray, axis: int) -> float:
    """Squared error of symmetric int8 codes with a scale for each slice of an axis."""
    scale = np.abs(values).max(axis=axis, keepdims=True) / 127
    return float(((np.rint(values / scale) * scale - values) ** 2).sum())


def test_tables_count_with_what_is_added(made):
    chains, plans = made
    assert chains["x"].kind == "gather"
    wanted = rounded(CONSTANTS["t"], 1) + rounded(CONSTANTS["p"], 2)
    assert weight_error(chains["x"], plans["int8"]) == pytest.approx(wanted, rel=0.05)


def test_products(made):
    chains, plans = made
    exact = weight_error(chains["y"], plans["int8"])
    assert exact == pytest.approx(rounded(CONSTANTS["w"], 0), rel=0.05)
    assert weight_error(chains["y"], plans["w4a8"]) > 30 * exact


@pytest.mark.parametrize(("format", "dtype"), [("bf16", ml_dtypes.bfloat16), ("fp16", np.float16)])
def test_narrow_floats(made, format, dtype):
    chains, plans = made

    def wanted(*names: str) -> float:
        return sum(((CONSTANTS[n].astype(dtype).astype(np.float64) - CONSTANTS[n]) ** 2).sum() for n in names)

    assert weight_error(chains["y"], plans[format]) == pytest.approx(wanted("w"))
    assert weight_error(chains["x"], plans[format]) == pytest.approx(wanted(*("t", "p") if format == "fp16" else ()))


def test_moved_codes_are_farther_away(made):
    chains, plans = made
    plan = plans["int8"]
    moved = replace(plan.tensors["y.weight"], moves=pack_moves(np.ones((32, 24), np.int8)))
    other = replace(plan, tensors={**plan.tensors, "y.weight": moved})
    assert weight_error(chains["y"], other) > 2 * weight_error(chains["y"], plan)
