"""Errors layer by layer, in order of execution, as a page and as values."""

from __future__ import annotations

import json

from qcompile.analyze.debug import LayerError
from qcompile.report.debugging import write_debug_report
from tests.report.pages import ODD, parsed

ROWS = [  # worst alone first
    LayerError("b", ODD, "int8", 20.0, 18.0, 0.5, 0.75, 0.125),
    LayerError("a", "first", "w4a8", 40.0, 40.0, 0.01, 0.02, None),
    LayerError("c", "last", "int8", 60.0, 17.5, 1e-3, 0.8, 0.0),
]
TOLD = ("<m>.onnx", "x86", "c.npz")


def test_page(tmp_path):
    write_debug_report(tmp_path / "d.html", ROWS, "abc", *TOLD)
    text = (tmp_path / "d.html").read_text()
    page = parsed(text)
    assert "<a&b>" not in text and "<m>" not in text and not page.all("script")
    assert page.all("h1")[0].text == "Errors of <m>.onnx" and f"Worst alone: {ODD} (20.0 dB)," in page.text
    cells = [[c.text for c in row.children if not isinstance(c, str)] for row in page.all("tr")[1:]]
    assert cells[0] == ["first", "w4a8", "40.0", "40.0", "0.01", "0.02", ""]
    assert cells[1] == [ODD, "int8", "20.0", "18.0", "0.5", "0.75", "12.50 %"] and cells[2][0] == "last"
    assert page.all("a")[0]["href"] == "#l1" and page.by_id("l1").text.startswith(ODD)
    shades = sorted((-float(td.text), int(td["class"][1])) for td in page.all("td") if td["class"].startswith("h"))
    assert [s for _, s in shades] == sorted(s for _, s in shades) and (shades[0][1], shades[-1][1]) == (0, 8)


def test_values(tmp_path):
    write_debug_report(tmp_path / "d.json", ROWS, "abc", *TOLD)
    values = json.loads((tmp_path / "d.json").read_text())
    assert [row["layer"] for row in values["layers"]] == ["a", "b", "c"] and values["inputs"] == "c.npz"
    assert values["layers"][1]["sqnr_alone"] == 20.0 and values["layers"][0]["clipped"] is None
