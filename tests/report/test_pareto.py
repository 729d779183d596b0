"""The report of a front: names are escaped, pictures are XML, equal fronts give equal pages."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from qcompile.assign.greedy import rivals
from qcompile.assign.pareto import dominates, pareto
from qcompile.assign.table import Uniform
from qcompile.report.assignment import number
from qcompile.report.page import report_html
from qcompile.report.pareto import mixture, pareto_table, pareto_values, remark
from qcompile.report.pareto_figures import formats_map, loss_against_latency, loss_against_size
from tests.assign.tables import made_up


@pytest.fixture(scope="module")
def table():
    return dataclasses.replace(made_up(6, 4, 1, skip=0), model="models/<b>.onnx")


@pytest.fixture(scope="module")
def points(table):
    return pareto(table, points=4, sizes=1)


def test_a_row_for_each_point(table, points):
    assert pareto_table(points, table).row_count == len(points)
    values = pareto_values(points, table)
    assert [p["uniform"] for p in values["points"]] == [p.name or None for p in points]
    assert values["points"][0]["formats"].keys() == {group.name for group in table.groups}


def test_words(table, points):
    uniform = next(p for p in points if p.name == "int8")
    assert mixture(uniform, table) == "6 int8" and remark(uniform).startswith("all int8")
    assert remark(dataclasses.replace(uniform, front=False)) == "all int8, not on the front"
    assert number(0.012345) == "0.0123" and number(0) == "0"


def test_pictures_are_xml_with_words(table, points):
    for draw in (loss_against_latency, loss_against_size, formats_map):
        root = ElementTree.fromstring(draw(points, table))
        assert root.tag.endswith("svg") and "int8" in "".join(root.itertext())
    assert 'xlink:href="#p0"' in loss_against_latency(points, table)


def test_page(table, points):
    page = report_html(table, None, points)
    assert "Precision of &lt;b&gt;.onnx<" in page and "<b>.onnx" not in page
    assert page.count('<tr id="p') == len(points) and "<b>int8</b>: layer0, layer1" in page
    assert page == report_html(table, None, points)


def test_rivals_and_measured_formats(table, points):
    seen = dataclasses.replace(table, uniform={"int8": Uniform(0.5, 4e-5, 10_000), "bf16": Uniform(seconds=1.0)})
    reached = rivals(seen, [p.totals for p in points])
    assert [*reached] == ["greedy", "hawq"] and all(len(sums) == len(points) for sums in reached.values())
    for point, *others in zip(points, *reached.values(), strict=True):
        better = [sums for sums in others if sums is not None and dominates(sums, point.totals)]
        assert point.name or not better
    page = report_html(seen, None, points, reached)
    assert page.count("loss by ") == 2 and page.count("all int8, measured") == 2 and "all bf16, measured" not in page
    headers = [column.header for column in pareto_table(points, seen, reached).columns]
    assert headers[-2:] == ["greedy", "hawq"]
    nowhere = {"greedy": [None] * len(points)}
    assert pareto_values(points, seen, nowhere)["compared"] == nowhere and "<td>-</td>" in report_html(
        seen, None, points, nowhere
    )


def test_nothing_lost_anywhere(table):
    """A front whose losses are all zero has a linear scale."""
    groups = tuple(
        dataclasses.replace(g, entries={n: dataclasses.replace(e, alone=0.0) for n, e in g.entries.items()})
        for g in table.groups
    )
    harmless = dataclasses.replace(table, groups=groups)
    assert "<svg" in report_html(harmless, None, pareto(harmless, points=3, sizes=0))
