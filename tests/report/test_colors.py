from __future__ import annotations

import itertools

import pytest

from qcompile.report.colors import FORMATS, HEAT, Heat, _luminance, on


@pytest.mark.parametrize("color", [*FORMATS, *HEAT])
def test_text_is_legible_on_every_colour(color):
    light, dark = sorted((_luminance(color), 1.0 if on(color) == "#fff" else 0.0), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA


def test_heat_darkens_steadily():
    assert all(a > b for a, b in itertools.pairwise(map(_luminance, HEAT)))


def test_steps_are_logarithmic():
    heat = Heat([1e-9, 1e-4, 0.0, 1e-3, -1.0])
    assert heat.step(1e-3) == len(HEAT) - 1 and heat.step(1e-9) == 0  # six decades below the greatest, and further
    assert heat.step(0.0) is None and heat.step(-1.0) is None and heat.step(None) is None
    assert [heat.step(start * 1.001) for start in heat.starts] == list(range(len(HEAT)))


def test_one_value_or_none():
    assert Heat([0.5]).step(0.5) == len(HEAT) - 1 and Heat([0.0]).step(0.0) is None
