from __future__ import annotations

import numpy as np
import pytest

from qcompile.calibrate.learn_codes import error, learn_codes, moments

BOUNDS = (-7, 7)


def problem(groups=1, outputs=6, length=24, n=400, seed=0):
    """Inputs that go together, so that roundings of the same sign add up; a coarse grid."""
    random = np.random.default_rng(seed)
    common = random.standard_normal((groups, n, 3)) @ random.standard_normal((groups, 3, length))
    rows = (common + 0.3 * random.standard_normal((groups, n, length)) + 1).astype(np.float32)
    weight = random.standard_normal((groups, outputs, length))
    step = np.broadcast_to(np.abs(weight).max(axis=2, keepdims=True) / 7, weight.shape)
    return rows, weight, step


def outputs_off(rows, weight, codes, coded, centered):
    off = coded @ codes.swapaxes(1, 2) - rows @ weight.swapaxes(1, 2)
    off = off - off.mean(axis=1, keepdims=True) if centered else off
    return float(np.square(off).sum() / rows.shape[1])


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_layers_compute_more_of_what_they_should(groups, centered):
    rows, weight, step = problem(groups)
    coded = (np.rint(rows * 4) / 4).astype(np.float32)
    second, lost = moments(weight, rows, coded, centered)
    nearest = np.rint(weight / step)
    moves = learn_codes(weight, step, BOUNDS, second, lost)
    assert moves.dtype == np.int8 and np.abs(moves).max() == 1
    assert np.abs(nearest + moves).max() <= 7
    before, after = (outputs_off(rows, weight, codes * step, coded, centered) for codes in (nearest, nearest + moves))
    assert after < 0.35 * before
    # It is the quadratic form, but for what no code changes.
    offs = [codes * step - weight for codes in (nearest, nearest + moves)]
    forms = [float((e * (e @ second)).sum() + 2 * (e * lost).sum()) for e in offs]
    assert forms[0] - forms[1] == pytest.approx(before - after, rel=1e-3)
    errors = [error(weight, e, rows, coded, centered) for e in offs]
    assert errors == pytest.approx([before, after], rel=1e-3)


def test_inputs_that_do_not_go_together_leave_little_to_learn():
    random = np.random.default_rng(1)
    rows = random.standard_normal((1, 20000, 16)).astype(np.float32)
    _, weight, step = problem(length=16)
    moves = learn_codes(weight, step, BOUNDS, *moments(weight, rows, rows, True))
    assert np.abs(moves).mean() < 0.05


def test_what_is_always_zero_teaches_nothing():
    rows, weight, step = problem(groups=2)
    rows[1] = 0
    moves = learn_codes(weight, step, BOUNDS, *moments(weight, rows, rows, True))
    assert moves[0].any() and not moves[1].any()
