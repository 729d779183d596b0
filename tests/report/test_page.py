"""The page: all groups, the table's numbers, escaped names, nothing from elsewhere."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace

import pytest

import qcompile as qc
from qcompile.assign.assignment import assign
from qcompile.assign.pareto import pareto
from qcompile.errors import QCompileError
from qcompile.report.assignment import number
from qcompile.report.page import check_report, report_html, write_report
from tests.assign.tables import made_up
from tests.report.pages import ODD, entries, odd_table, parsed, with_checks


@pytest.fixture(scope="module")
def table():
    return with_checks()


@pytest.fixture(scope="module")
def points(table):
    return pareto(table, points=3, sizes=0)


@pytest.fixture(scope="module")
def chosen(table):
    return assign(table, max_loss=0.0011)


@pytest.fixture(scope="module")
def page(table, chosen, points):
    return report_html(table, chosen, points, facts=[("accuracy", "drop < 1")])


@pytest.fixture(scope="module")
def tree(page):
    return parsed(page)


def after(tree, heading: str, tag: str):
    """The first element of a kind behind a heading."""
    body = tree.own("html").own("body").children
    start = next(i for i, e in enumerate(body) if not isinstance(e, str) and e["id"] == heading)
    for element in body[start + 1 :]:
        if not isinstance(element, str):
            found = [element, *element.all(tag)] if element.tag == tag else element.all(tag)
            if found:
                return found[0]
    raise AssertionError(f"no <{tag}> behind #{heading}")


def rows(table) -> list[list[str]]:
    return [[c.text for c in row.children if not isinstance(c, str)] for row in table.all("tr")]


def test_nothing_comes_from_elsewhere(page, tree):
    assert not tree.all("script") and not tree.all("link") and not tree.all("img") and not tree.all("iframe")
    for element in tree._every():
        for name, value in element.attributes.items():
            if name in ("href", "src", "xlink:href", "srcset", "data"):
                assert value.startswith(("#", "data:")), value
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # of vocabularies: nothing is fetched
    assert set(re.findall(r"https?://[^\s\"'<>]+", page)) <= names


def test_links_lead_somewhere(tree):
    ids = [element["id"] for element in tree._every() if element["id"] and element.tag != "clippath"]
    for link in tree.all("a"):
        target = link["href"] or link["xlink:href"]
        assert target.startswith("#") and ids.count(target[1:]) == 1, target


def test_names_are_escaped(page, tree):
    assert "<a&b>" not in page and "<m>" not in page and "<note>" not in page and "<1>" not in page
    assert tree.all("h1")[0].text == "Precision of <m>.onnx" and "a <note>" in tree.text and "CPU <1>" in tree.text
    assert f"tail adds {ODD}" in tree.by_id("g0").text and "no w4a8: too <small>" in tree.by_id("g2").text


def test_plan_beside_the_uniform_formats(tree, chosen):
    found = rows(tree.all("table")[0])
    assert [row[0] for row in found[1:]] == ["this plan", "all fp32", "all int8", "all w4a8"]
    assert found[1][1] == f"{chosen.totals.seconds * 1e6:.1f}" and found[1][4] == number(chosen.totals.loss)
    assert found[1][6] == "0.0031"  # as the check of these formats has it
    assert found[3][5:] == ["9.0", "0.0012"]
    assert "least latency within a loss of 0.0011 kl" in tree.text and tree.all("dd")[0].text == "drop < 1"


def test_graph_has_all_layers_in_the_colours_of_their_formats(tree, chosen, table):
    names = [row.name for row in table.formats]
    boxes = {a.all("text")[0].text: (a["href"], a.all("g")[0]) for a in after(tree, "graph", "svg").all("a")}
    svg = next(svg for svg in tree.all("svg", "graph") if svg.all("rect"))
    boxes = {a.all("text")[0].text: (a["href"], a.all("g")[0]) for a in svg.all("a")}
    assert set(boxes) == {layer for group in table.groups for layer in group.layers}
    for i, group in enumerate(table.groups):
        for layer in group.layers:
            link, box = boxes[layer]
            assert link == f"#g{i}" and box["class"] == f"f{names.index(chosen.formats[group.name])}"
            told = box.all("title")[0].text
            assert all(f"{name}: {number(e.alone)} kl" in told for name, e in group.entries.items())
            assert chosen.why[layer] in told
    ends = [box.text for box in svg.all("g", "end")]
    assert any(text.startswith("input in") for text in ends) and any("outputs" in text for text in ends)
    assert {path.all("title")[0].text.split(":")[0] for path in svg.all("path", "cast")} == {"cast fp32 to int8"}


def test_what_was_not_measured_has_no_columns(table):
    groups = [
        replace(group, entries={name: replace(e, upto=None) for name, e in group.entries.items()})
        for group in table.groups
    ]
    page = report_html(replace(table, groups=tuple(groups)), None, [])
    assert rows(parsed(page).all("table", "heat")[0])[0] == ["group", "int8 alone", "w4a8 alone"]
    assert "up to here" not in page and "together with all groups" not in page


def test_tables_have_the_tables_numbers(tree, table, chosen):
    heat = tree.all("table", "heat")[0]
    assert rows(heat)[0] == ["group", "int8 alone", "w4a8 alone", "int8 up to here", "w4a8 up to here"]
    for row, group in zip(rows(heat)[1:], table.groups, strict=True):
        found = [group.entries.get(name) for name in ("int8", "w4a8")]
        alone = ["none" if entry is None else number(entry.alone) for entry in found]
        upto = ["none" if e is None else "" if e.upto is None else number(e.upto) for e in found]
        assert row == [group.name, *alone, *upto]
    bars = tree.all("table", "bars")[0]
    formats = ("fp32", "int8", "w4a8")
    for row, line, group in zip(rows(bars)[1:-1], bars.all("tr")[1:-1], table.groups, strict=True):
        times = {name: f"{e.seconds * 1e6:.1f}" + ("" if e.measured else " ?") for name, e in group.entries.items()}
        assert row == [group.name, "", *(times.get(name, "none") for name in formats)]
        assert [td.text for td in line.all("td", "chosen")] == [times[chosen.formats[group.name]]]
        lengths = [float(bar["style"].removeprefix("width:").removesuffix("%")) for bar in line.all("span", "bar")]
        assert lengths == [round(100 * entry.seconds / 8e-6, 1) for entry in group.entries.values()]
        (own,) = line.all("span", "chosen")
        assert own["class"].split()[1] == f"f{formats.index(chosen.formats[group.name])}"
    assert rows(bars)[-1] == ["operators in no group", "0.5 us in any plan"]


def test_other_scores(tree):
    (listed,) = [d for d in tree.all("details") if d.own("summary").text == "Other scores: sqnr"]
    assert rows(listed)[1:3] == [[ODD, "int8", "40"], [ODD, "w4a8", ""]]


def test_heat_is_darkest_where_the_loss_is_greatest(tree):
    cells = [td for td in tree.all("table", "heat")[0].all("td") if re.match(r"h\d", td["class"])]
    shades = sorted((float(td.text), int(td["class"][1])) for td in cells)
    assert shades[0][1] == 0 and shades[-1][1] == 8 and [s for _, s in shades] == sorted(s for _, s in shades)


def test_checks_are_drawn_and_listed(tree):
    found = rows(after(tree, "checks", "table"))
    assert ["assigned", "0.002", "0.0031", "1.55"] in found and any(row[0] == "all int8" for row in found)
    drawn = after(tree, "checks", "svg").text
    assert "assigned" in drawn and "plans that were checked" in drawn and "first groups in int8" in drawn
    assert "extra loss, kl" in tree.text and "0.0005" in tree.text


def test_points_of_the_front(tree, points):
    found = rows(after(tree, "front", "table"))
    assert len(found) == 1 + len(points) and found[1][1] == f"{points[0].totals.seconds * 1e6:.1f}"
    dots = {a["xlink:href"]: a for a in after(tree, "front", "svg").all("a")}
    assert [*dots] == [f"#p{i}" for i in range(len(points))]
    assert all(number(point.totals.loss) in dot.text for point, dot in zip(points, dots.values(), strict=True))
    assert not any(dot["target"] for dot in dots.values())  # a row of this page, not a new window


def test_equal_tables_give_equal_pages(page, table, chosen, points):
    assert page == report_html(table, chosen, points, facts=[("accuracy", "drop < 1")])


def test_without_a_plan_or_checks(points):
    """The fastest uniform format is shown; tables without losses up to a group, or with none at all, have pages too."""
    bare = odd_table(uniform={}, notes=(), sources={}, casts=())
    tree = parsed(report_html(bare, None, pareto(bare, points=3, sizes=0)))
    assert "No plan was chosen: formats are shown as all int8 has them" in tree.text
    assert [tree.by_id(f"g{i}").all("span")[0].text for i in range(3)] == ["int8", "int8", "int8"]
    known = {name: dict(alone=e.alone, seconds=e.seconds, bytes=e.bytes) for name, e in entries(0, 0).items()}
    groups = tuple(
        type(g)(g.name, g.layers, {n: type(e)(**known[n]) for n, e in g.entries.items()}) for g in bare.groups
    )
    nothing = odd_table(uniform={}, groups=groups)
    tree = parsed(report_html(nothing, None, pareto(nothing, points=3, sizes=0)))
    assert "No plan was measured as a whole" in tree.text and not tree.all("td", "h8")


def test_a_table_without_groups(tmp_path):
    table = odd_table(groups=(), casts=(), sources={}, reads={}, uniform={})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(tmp_path / "r.html", table, points=pareto(table))
    assert parsed((tmp_path / "r.html").read_text()).all("table", "heat")


def test_size_with_many_groups():
    table = made_up(150, 4, seed=5)
    points = pareto(table, points=2, sizes=0, gap=1e-2)
    page = report_html(table, None, points)
    assert len(page) < 2_000_000 and len(parsed(page).all("a")) > 300


def test_written_as_page_or_values(table, chosen, points, page, tmp_path):
    facts = [("accuracy", "drop < 1")]
    qc.write_report(tmp_path / "r.html", table, chosen, points, facts=facts)
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == page
    write_report(tmp_path / "r.json", table, chosen, points, facts=facts)
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["format"] == "qcompile.report" and len(values["groups"]) == 3
    assert values["facts"] == {"accuracy": "drop < 1"}
    write_report(tmp_path / "own.json", table)  # finds a front of its own
    assert json.loads((tmp_path / "own.json").read_text())["front"]["points"]


def test_refused_before_any_work(tmp_path, monkeypatch):
    with pytest.raises(QCompileError, match="no such folder; make it first"):
        check_report(tmp_path / "none" / "r.html")
    with pytest.raises(QCompileError, match="two results in one file; give the report another name"):
        check_report(tmp_path / "t.json", tmp_path / "x" / ".." / "t.json")
    monkeypatch.setattr("qcompile.report.page.find_spec", lambda name: None)
    check_report(tmp_path / "r.json")
    with pytest.raises(QCompileError, match="reports need matplotlib and jinja2; pip install"):
        check_report(tmp_path / "r.html")
