"""The search on made-up tables, with measurements that are known functions of the formats."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcompile.assign.assignment import assign
from qcompile.assign.table import Pair, SensitivityTable
from qcompile.assign.totals import totals, uniform_formats
from qcompile.errors import QCompileError
from qcompile.mixed.goal import Drop, Goal
from qcompile.mixed.pairs import is_additive
from qcompile.mixed.search import SPARE, Search
from qcompile.mixed.trials import Trial, Trials, key_of
from tests.assign.tables import made_up


class Known(Trials):
    """Losses by ``truth``: the table and, perhaps, pairs that it does not know of; drops are ``rate`` times these."""

    def __init__(self, truth: SensitivityTable, rate: float = 1.0):
        self.truth, self.rate = truth, rate
        self.done, self.baseline, self.asked = [], 1.0, 0

    def measure(self, table, candidates):
        for name, formats in candidates.items():
            if key_of(formats) not in {key_of(trial.formats) for trial in self.done}:
                loss = totals(self.truth, formats).loss
                self.done.append(Trial(name, dict(formats), totals(table, formats), loss, -1.0, self.rate * loss))
        by_key = {key_of(trial.formats): trial for trial in self.done}
        return [replace(by_key[key_of(f)], predicted=totals(table, f)) for f in candidates.values()]

    def at_most(self, trial):
        """Nothing is sure; but of ``Sure`` all is."""
        return 2.0


class Sure(Known):
    def at_most(self, trial):
        return trial.expected


class KnownPairs(Known):
    """Pairs are measured where ``Trials`` would: with only two groups in other formats than fp32."""

    simulation = type("Simulation", (), {"layers": (), "formats": staticmethod(lambda layer: ())})()

    def losses(self, configurations):
        self.asked += len(configurations)
        return [self.pair_losses.pop(0) for _ in configurations]


def run(table, goal, truth=None, rate=1.0):
    trials = Known(truth or table, rate)
    search = Search(table, trials, goal)
    return (*search.run(), search)


def test_a_share_of_nothing_is_told():
    table = made_up(5, 2)
    trials = Known(table)
    trials.baseline = 0.0
    with pytest.raises(QCompileError, match="0.5% of that is nothing"):
        Search(table, trials, Goal(Drop(0.5, percent=True))).run()


def test_the_fastest_that_holds():
    table = made_up(30, 3, seed=1)
    free = assign(table, max_loss=1e9, objective="latency")
    assignment, chosen, search = run(table, Goal(Drop(free.totals.loss / 5)))
    assert chosen.expected <= free.totals.loss / 5
    best = assign(table, max_loss=free.totals.loss / 5, objective="latency")
    # Between two levels of loss something faster may lie: the search is as near to the optimum as its levels are.
    assert best.totals.seconds <= assignment.totals.seconds <= 1.2 * best.totals.seconds
    assert dict(assignment.formats) == dict(chosen.formats) and set(assignment.why) >= set(free.why)


def test_everything_goes_where_nothing_is_lost():
    table = made_up(12, 3, seed=2)
    assignment, chosen, _ = run(table, Goal(Drop(1.0)), rate=0.0)
    fastest = assign(table, max_loss=1e9, objective="latency").totals.seconds
    assert assignment.totals.seconds <= (1 + SPARE + 1e-3) * fastest


def test_nothing_is_given_for_less_loss_where_a_plan_is_sure_to_hold():
    table = made_up(12, 3, seed=2)
    goal, fastest = Goal(Drop(1.0)), assign(table, max_loss=1e9, objective="latency").totals.seconds
    sure, unsure = (Search(table, kind(table, 0.0), goal).run()[0].totals for kind in (Sure, Known))
    assert sure.seconds <= 1.002 * fastest < unsure.seconds <= (1 + SPARE + 2e-3) * fastest
    assert unsure.loss < sure.loss


def test_nothing_goes_where_all_is_lost():
    table = made_up(12, 3, seed=2)
    assignment, chosen, search = run(table, Goal(Drop(0.0)))
    assert search.holds(chosen) and set(assignment.formats.values()) == {"fp32"}


def test_what_drops_least_if_nothing_holds():
    table = made_up(12, 3, seed=3)
    fp32 = totals(table, uniform_formats(table, "fp32"))
    budget = 0.5 * fp32.seconds
    assignment, chosen, search = run(table, Goal(Drop(0.0), max_seconds=budget))
    assert not search.holds(chosen) and assignment.totals.seconds <= budget
    least = assign(table, max_seconds=budget, objective="accuracy").totals.loss
    assert chosen.expected == pytest.approx(least, rel=1e-3)


def test_the_smallest_that_holds():
    table = made_up(20, 4, seed=4)
    free = assign(table, max_loss=1e9, objective="size")
    assignment, chosen, search = run(table, Goal(Drop(free.totals.loss / 10), objective="size"))
    assert search.holds(chosen)
    assert assignment.totals.bytes < totals(table, uniform_formats(table, "fp32")).bytes / 2


def test_a_budget_that_nothing_keeps():
    with pytest.raises(QCompileError, match="best reachable"):
        run(made_up(6, 3), Goal(max_bytes=1))


def test_pairs_that_do_not_add_up_are_found_and_avoided():
    """The two groups that lose most alone lose ten times as much together: the table learns it and keeps them apart."""
    table = made_up(6, 2, seed=5, skip=0.0)
    order = sorted(table.groups, key=lambda group: -group.entries["int8"].alone)
    worst = tuple(group.name for group in table.groups if group in order[:2])
    together = 10 * sum(group.entries["int8"].alone for group in order[:2])
    truth = replace(table, pairs=(Pair(worst, ("int8", "int8"), together),))
    everything = totals(table, uniform_formats(table, "int8"))
    names = [group.name for group in table.groups]
    alone = {group.name: group.entries["int8"].alone for group in table.groups}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    trials = KnownPairs(truth)
    trials.pair_losses = [alone[a] + alone[b] + (together if (a, b) == worst else 0) for a, b in pairs]
    search = Search(table, trials, Goal(Drop(2 * everything.loss)))
    assignment, chosen = search.run()
    assert trials.asked == len(pairs)
    assert totals(search.table, everything_int8 := uniform_formats(table, "int8")).loss == pytest.approx(
        totals(truth, everything_int8).loss
    )
    assert [assignment.formats[name] for name in worst].count("int8") == 1
    others = [name for name in names if name not in worst]
    assert all(assignment.formats[name] == "int8" for name in others) and search.holds(chosen)


def test_additive_or_not():
    table = made_up(4, 2)
    trial = Trial("t", {}, totals(table, uniform_formats(table, "int8")), 0.0, 0.0, 0.0)
    predicted = trial.predicted.loss
    assert is_additive(replace(trial, loss=1.2 * predicted)) and not is_additive(replace(trial, loss=2 * predicted))
    assert not is_additive(replace(trial, loss=predicted / 2))
