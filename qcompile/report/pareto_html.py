"""The front of accuracy, latency and size as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import PurePath

from qcompile.assign.pareto import Point
from qcompile.assign.table import SensitivityTable
from qcompile.errors import QCompileError
from qcompile.report import units
from qcompile.report.assignment import number
from qcompile.report.pareto import Rivals, mixture, remark

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Accuracy, latency and size of {{ model }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 66em; padding: 0 1em; color: #222; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15em .7em; text-align: right; vertical-align: top; border-bottom: 1px solid #ddd; }
th:last-child, td:last-child, th.text, td.text { text-align: left; }
tr:target { background: #fff3c4; }
tr.behind { color: #999; }
details { max-width: 40em; }
figure { margin: 1.5em 0; overflow-x: auto; }
figcaption { color: #555; }
</style>
</head>
<body>
<h1>Accuracy, latency and size of {{ model }}</h1>
<p>{{ table.groups | length }} groups of layers in {{ table.formats | map(attribute="name") | join(", ") }};
loss: {{ table.metric }} on {{ table.samples }} samples; latency on {{ table.target }}{{ device }},
{{ table.threads }} thread{{ "s" if table.threads > 1 }}, {{ measured }} of it measured layer by layer, the rest
predicted.
Loss and latency of a point are sums over its layers and casts.</p>
{% for picture, caption in pictures %}
<figure>{{ picture | safe }}<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
<h2>Points</h2>
<table>
<tr><th>point</th><th>latency, us</th><th>of it casts</th><th>loss, {{ table.metric }}</th><th>size</th>
{% for name in rivals %}<th>loss by {{ name }}</th>{% endfor %}
<th class="text">formats of groups</th></tr>
{% for point in points %}
{% set i = loop.index0 %}
<tr id="p{{ i }}"{% if not point.front %} class="behind"{% endif %}>
<td>{{ i }}</td><td>{{ (point.totals.seconds * 1e6) | us }}</td>
<td>{{ (point.totals.cast_seconds * 1e6) | us }}</td><td>{{ point.totals.loss | number }}</td>
<td>{{ point.totals.bytes | size }}</td>
{% for reached in rivals.values() %}<td>{{ reached[i] | rival }}</td>{% endfor %}
<td><details><summary>{{ point | mixture }}{% if point.name %} <b>{{ point | remark }}</b>{% endif %}</summary>
{% for row in table.formats %}{% set names = point | having(row.name) %}{% if names %}
<b>{{ row.name }}</b>: {{ names | join(", ") }}<br>
{% endif %}{% endfor %}</details></td></tr>
{% endfor %}
</table>
</body>
</html>
"""


def check_installed() -> None:
    """Raises ``QCompileError`` where the libraries for reports are missing."""
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise QCompileError(f"reports need {' and '.join(missing)}", remedy="pip install 'qcompile[report]'")


def pareto_html(points: Sequence[Point], table: SensitivityTable, rivals: Rivals | None = None) -> str:
    """One page: pictures, and the table behind them with the layers of each point by format.

    rivals: methods to compare with, drawn beside the front.
    """
    check_installed()
    from jinja2 import Environment

    from qcompile.report.pareto_figures import formats_map, loss_against_latency, loss_against_size

    page = Environment(autoescape=True, trim_blocks=True)
    page.filters.update(
        us=units.microseconds,
        number=number,
        size=units.size,
        remark=remark,
        rival=lambda sums: "-" if sums is None else number(sums.loss),
        mixture=lambda point: mixture(point, table),
        having=lambda point, name: [group for group, chosen in point.formats.items() if chosen == name],
    )
    pictures = [
        (
            loss_against_latency(points, table, rivals),
            "Loss against latency. A dot is a plan and leads to its row below; between two may be others.",
        ),
        (loss_against_size(points, table, rivals), "Loss against size of the same plans."),
        (formats_map(points, table), "Formats of the groups in each plan."),
    ]
    return page.from_string(_PAGE).render(
        model=PurePath(table.model).name,
        table=table,
        points=points,
        rivals=rivals or {},
        pictures=pictures,
        measured=_measured(table),
        device=_device(table),
    )


def _measured(table: SensitivityTable) -> str:
    """Share of the entries' seconds that were measured."""
    entries = [entry for group in table.groups for entry in group.entries.values()]
    total = sum(entry.seconds for entry in entries)
    return f"{100 * sum(e.seconds for e in entries if e.measured) / total:.0f} %" if total else "none"


def _device(table: SensitivityTable) -> str:
    return f" ({table.device})" if table.device else ""
