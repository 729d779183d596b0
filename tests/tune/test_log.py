"""The tuning log: what it finds, and what it keeps of what it is given."""

from __future__ import annotations

import dataclasses

import pytest

from qcompile.tune.log import TuningLog
from qcompile.tune.prune import prune
from qcompile.tune.record import INSTRUCTIONS, Search, Task, canonical
from tests.tune.log_items import AVX2, CONV, DENSE, TASK, VNNI, fill, record


def test_a_new_log_is_empty(log, tmp_path):
    assert (len(log), log.best(*TASK), log.trials(*TASK), log.search(*TASK)) == (0, None, [], None)
    assert (list(log.items()), log.tasks()) == ([], [])


def test_best_is_the_least_minimum(log):
    slow_median = record(8.0, 2, costs=(8e-6, 90e-6))
    for r in (record(9.0, 1), slow_median, record(8.0, 3, costs=(8e-6, 91e-6)), record(None, 4)):
        log.add(r)
    assert log.best(*TASK) == slow_median
    assert [r.knobs for r in log.trials(*TASK)] == [canonical({"columns": n}) for n in (1, 2, 3, 4)]


def test_failures_are_no_best(log):
    log.add(record(None))
    assert log.best(*TASK) is None
    assert log.trials(*TASK) == [record(None)]


@pytest.mark.parametrize(
    "change",
    [{"workload": DENSE}, {"batch": 2}, {"instructions": AVX2}, {"template": 2}, {"unit": INSTRUCTIONS}],
    ids=lambda c: next(iter(c)),
)
def test_records_of_another_task_are_never_found(log, change):
    log.add(record(**change))
    assert (log.best(*TASK), log.trials(*TASK)) == (None, [])
    assert log.best(*dataclasses.astuple(record(**change).task)) == record(**change)


def test_times_of_two_cpus_do_not_compare(log):
    fast_old = record(5.0, 1, device="Xeon")
    new = [record(us, us, device="EPYC", created="2026-02-01T00:00:00Z") for us in (20, 15)]
    log.update([*new, fast_old])
    assert log.best(*TASK) == new[1], "measured last"
    assert log.best(*TASK, device="Xeon") == fast_old
    assert log.best(*TASK, device="Core") == new[1], "nothing of it: as without"
    log.add(record(None, 9, device="Xeon", created="2026-03-01T00:00:00Z"))
    assert log.best(*TASK) == new[1], "a failure is no measurement"


def test_units_do_not_displace_one_another(log):
    """Neither a record nor the end of a search, however small the number."""
    counted = record(1.0, 2, unit=INSTRUCTIONS)
    log.update([record(9.0, 1), counted])
    log.set_search(Search(*TASK, trials=8, finished=True, created=counted.created, unit=INSTRUCTIONS))
    assert (log.best(*TASK), log.search(*TASK)) == (record(9.0, 1), None)
    assert log.same_operator("conv2d", VNNI, 1, INSTRUCTIONS) == [counted]
    assert log.other_batches(CONV, 8, VNNI, 1, INSTRUCTIONS) == [counted]
    assert prune(log, keep=1)["slower"] == 0


def test_what_knobs_may_be_transferred_from(log):
    shapes = [canonical({"operator": "conv2d", "weight": [size]}) for size in (1, 1, 2)]
    near = [record(us, workload=shape) for shape, us in zip(shapes, (3, 2, 9), strict=True)]
    log.update([*near, record(workload=DENSE), record(instructions=AVX2), record(template=2), record(None, batch=4)])
    assert log.same_operator("conv2d", VNNI, 1) == [near[1], near[2]]
    assert log.same_operator("depthwise_conv2d", VNNI, 1) == []


def test_other_batches_nearest_first(log):
    records = {batch: record(batch=batch) for batch in (1, 4, 16, 64)}
    log.update([*records.values(), record(5.0, batch=16, template=2)])
    assert log.other_batches(CONV, 8, VNNI, 1) == [records[n] for n in (4, 16, 1, 64)]
    assert records[4] not in log.other_batches(CONV, 4, VNNI, 1)


def test_a_search_is_replaced(log):
    first = Search(*TASK, trials=8, finished=True, created="2026-01-01T00:00:00Z")
    again = dataclasses.replace(first, trials=2, finished=False)
    log.set_search(first)
    log.set_search(again)
    assert (log.search(*TASK), list(log.searches())) == (again, [again])
    assert log.tasks() == [Task(*TASK)]


def test_records_by_instructions(log):
    log.update([record(), record(instructions=AVX2)])
    assert list(log.records(AVX2)) == [record(instructions=AVX2)]
    assert len(list(log.records())) == len(log) == 2


def test_equal_records_are_one(log):
    assert log.update([record(), record(), record(11.0)]) == 2
    log.add(record())
    assert len(log) == 2


def test_update_is_all_or_nothing(log):
    def items():
        yield record()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.update(items())
    with pytest.raises(AttributeError):
        log.update([record(), None])
    assert len(log) == 0
    log.add(record())  # and is of use afterwards


@pytest.mark.parametrize("turn", [1, -1])
def test_of_two_searches_the_one_further_stays(log, turn):
    ended = Search(*TASK, trials=8, finished=True, created="2026-01-01T00:00:00Z")
    longer = Search(*TASK, trials=90, finished=False, created="2026-02-01T00:00:00Z")
    for search in (ended, longer)[::turn]:
        log.update([search])
    assert log.search(*TASK) == ended


def test_two_logs_become_one(log, tmp_path):
    search = Search(*TASK, 3, True, "2026-01-01T00:00:00Z")
    other = fill(tmp_path / "b.db", record(1.0), record(2.0, 2), search)
    log.add(record(1.0))
    with TuningLog.open(other, read_only=True) as b:
        assert (log.update(b.items()), log.update(b.items())) == (1, 0)
    assert set(log.items()) == {record(1.0), record(2.0, 2), search}
