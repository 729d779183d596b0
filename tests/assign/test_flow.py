"""Tensors between groups, and the codes that layers read."""

from __future__ import annotations

import qcompile as qc
from qcompile import graph
from qcompile.assign.flow import find_casts, find_passive, find_reads, find_residuals, find_sources
from qcompile.assign.structure import Structure
from qcompile.assign.table import Cast
from qcompile.assign.ties import find_ties
from tests.building import cnn, plan_of, with_island


def read(source, **options):
    model = qc.import_onnx(source)
    return Structure(graph.read(model.module)), {"int8": plan_of(model, **options)}


def test_casts_between_groups():
    structure, plans = read(cnn())
    casts = find_casts(structure, find_ties(structure, plans), plans)
    assert casts == [Cast("x", 3 * 12 * 12, "", ("r0",)), Cast("p", 20, "r0", ("y",))]  # flatten passes p on


def test_operators_outside_make_and_read_float32():
    structure, plans = read(with_island())
    casts = find_casts(structure, find_ties(structure, plans), plans)
    assert casts == [Cast("x", 18, "", ("m",)), Cast("s", 27, "", ("y",))]  # m is written as float32


def test_reads_and_residuals():
    structure, plans = read(cnn())
    reads = find_reads(structure, plans)
    assert reads["y"] == ("f", "p", "y.weight", "y.bias") and reads["a"] == ("r0", "a.weight", "a.bias")
    assert "" not in reads and find_residuals(structure, plans) == {"a": ("r0",)}
    assert {name for names in reads.values() for name in names} == set(plans["int8"].tensors)


def test_ends_that_are_codes():
    structure, plans = read(cnn(), integer_inputs=["x"], integer_outputs=["y"])
    assert find_reads(structure, plans)[""] == ("x", "y")


def test_sources_of_layers():
    """Through what is in no group, residuals included; none of a layer that reads what it makes itself."""
    structure, plans = read(cnn())
    ties = find_ties(structure, plans)
    sources = find_sources(structure, ties)
    assert sources == {"r0": ("x",), "a": ("r0",), "p": ("a",), "y": ("p",), "": ("y",)}
    structure, plans = read(with_island())
    assert find_sources(structure, find_ties(structure, plans))["y"] == ("m",)


def test_passive_layers():
    structure, _ = read(cnn())
    assert find_passive(structure) == ()  # a mean reads less if it reads codes
