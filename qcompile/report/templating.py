"""Pages out of templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcompile.report import colors, units
from qcompile.report.assignment import number

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> Environment:
    """The templates of this package, with filters for numbers. Whatever a template is given is escaped."""
    from jinja2 import Environment, PackageLoader

    found = Environment(loader=PackageLoader("qcompile.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.filters.update(us=units.microseconds, number=number, size=units.size, on=colors.on)
    found.globals.update(format_colors=colors.FORMATS, heat_colors=colors.HEAT)
    return found
