"""A session's decisions, with a measurer that answers at once: who is measured, what is written, when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.tune.log import TuningLog
from qcompile.tune.measure import Batch, Measurement
from qcompile.tune.record import INSTRUCTIONS, SECONDS, UNITS
from qcompile.tune.search import KnobSearch
from qcompile.tune.session import BATCH, Budget, open_tasks, search
from qcompile.tune.tasks import TuningTask
from tests.targets.running import AVX2, VNNI
from tests.targets.test_templates import convolution, matrix

LARGE, SMALL = convolution(64, 128, 28), matrix()
TASKS = [TuningTask(SMALL, ("small",)), TuningTask(LARGE, ("a", "b"))]


@dataclass
class Machine:
    """Takes the prior's word for every time, but of its favourite knobs.

    fails: which knobs do not run. interrupt: after so many batches.
    """

    fails: object = None
    interrupt: int | None = None
    favourite: object = None
    workers: int = 2
    device: str = "test CPU"
    cores: int = 4
    unit: str = SECONDS
    exact: bool = False
    compilers: tuple = ()
    batches: list[Batch] = field(default_factory=list)

    def measure_many(self, batches: Sequence[Batch]):
        for batch in batches:
            if self.interrupt is not None and len(self.batches) >= self.interrupt:
                raise KeyboardInterrupt
            self.batches.append(batch)
            yield [self._one(batch, knobs) for knobs in batch.knobs]

    def _one(self, batch: Batch, knobs) -> Measurement:
        if self.fails is not None and self.fails(knobs):
            return Measurement((), "wrong result")
        seconds = TEMPLATES[batch.workload.operator].cycles(batch.workload, VNNI, knobs) * 1e-9
        seconds *= (0.1 if knobs == self.favourite else 1) * (1 + 1e-9 * len(self.batches))  # no two are quite equal
        return Measurement((seconds * 1.1, seconds))


@pytest.fixture
def log(tmp_path):
    with TuningLog.open(tmp_path / "t.db") as log:
        yield log


def run(log, machine=None, budget=None, tasks=TASKS, **options):
    machine = machine or Machine()
    return search(open_tasks(tasks, VNNI, log, **options), machine, log, budget or Budget()), machine


def test_every_trial_is_in_the_log(log):
    outcome, machine = run(log)
    assert outcome.stopped == "finished"
    measured = sum(len(batch.knobs) for batch in machine.batches)
    assert len(log) == measured
    again = sum(len(state.search.tried) for state in outcome.tasks)
    assert outcome.trials == again < measured  # the best so far is measured once more in each batch
    record = next(log.records())
    assert (record.device, record.cores) == ("test CPU", 4)
    assert dict(record.tools).keys() == {"llvm", "qcompile", "tvm"}
    assert all(len(batch.knobs) <= BATCH for batch in machine.batches)


def test_what_is_exact_is_measured_once(log):
    """And neither knows nor ends a search for another unit."""
    run(log)
    before = len(log)
    outcome, machine = run(log, Machine(unit=INSTRUCTIONS, exact=True), unit=INSTRUCTIONS)
    assert outcome.trials == sum(len(batch.knobs) for batch in machine.batches) == len(log) - before > 0
    assert all(state.unit == INSTRUCTIONS and state.before == 0 for state in outcome.tasks)
    assert {record.unit for record in list(log.records())} == set(UNITS)


def test_a_full_log_needs_no_trials(log):
    run(log)
    before = len(log)
    outcome, machine = run(log)
    assert outcome.trials == 0 and not machine.batches and len(log) == before
    assert all(state.known for state in outcome.tasks)


def test_another_batch_is_known_other_instructions_are_not(log):
    run(log, tasks=[TASKS[1]])
    bigger = TuningTask(convolution(64, 128, 28, batch=8), ("a",))
    assert [state.known for state in open_tasks([bigger], VNNI, log)] == [True]
    assert [state.known for state in open_tasks([bigger], AVX2, log)] == [False]


def test_finished_tasks_are_searched_again_on_demand(log):
    run(log)
    (small, large) = open_tasks(TASKS, VNNI, log, again=True)
    assert not small.known and small.before > 0


def test_the_larger_task_comes_first(log):
    _, machine = run(log, Machine(workers=1))
    assert machine.batches[0].workload == LARGE


def test_trials_end_the_session_where_the_budget_says(log):
    outcome, machine = run(log, budget=Budget(trials=10))
    assert (outcome.trials, outcome.stopped) == (10, "trials")
    more, _ = run(log, budget=Budget(trials=3))
    assert more.trials == 3
    resumed, _ = run(log, budget=Budget(trials=16, resume=True))
    assert resumed.trials == 3, "10 and 3 were spent before"


def test_time_ends_the_session(log):
    outcome, machine = run(log, budget=Budget(seconds=0.0))
    assert outcome.stopped == "time" and outcome.trials == 0


def test_an_interrupted_session_loses_only_the_batch_under_way(log):
    with pytest.raises(KeyboardInterrupt):
        run(log, Machine(interrupt=2))
    recorded = {(record.workload, record.knobs) for record in log.records()}
    assert len(recorded) > BATCH
    outcome, machine = run(log)
    assert outcome.stopped == "finished"
    assert outcome.trials == sum(len(s.search.tried) for s in outcome.tasks) - len(recorded)


def test_failures_are_recorded_with_their_reason_and_never_win(log):
    default = TEMPLATES["conv2d"].default(LARGE, VNNI)
    outcome, _ = run(log, Machine(fails=lambda knobs: knobs == default), tasks=[TASKS[1]])
    (state,) = outcome.tasks
    assert state.failed == 1 and state.search.best != default
    assert [record.error for record in log.records() if not record.ok] == ["wrong result"]


def test_a_similar_shape_of_another_log_is_where_a_search_begins(log, tmp_path):
    """What was best there is tried first, after the default."""
    favourite = KnobSearch(LARGE, VNNI).propose(BATCH)[3]
    with TuningLog.open(tmp_path / "other.db") as other:
        run(other, Machine(favourite=favourite), tasks=[TASKS[1]])
        near = TuningTask(convolution(64, 128, 30), ("c",))
        (state,) = open_tasks([near], VNNI, log, elsewhere=[other])
        assert state.search.propose(BATCH)[:2] == [state.search.default, favourite]


def test_progress_is_reported_after_each_batch(log):
    seen = []
    states = open_tasks(TASKS, VNNI, log)
    search(states, Machine(), log, report=lambda states, seconds: seen.append(sum(s.trials for s in states)))
    assert seen[0] == 0 and seen == sorted(seen) and len(seen) > 2
