"""What builds find in tuning logs, and what they never take from them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from pathlib import Path

import pytest

from qcompile.errors import QCompileError
from qcompile.targets.kernels.template import COUNTED, DEFAULT, TRANSFERRED, TUNED, Schedule, knobs_json
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.tune.locations import default_log, shipped_logs
from qcompile.tune.log import TuningLog
from qcompile.tune.lookup import LoggedSchedules, log_files, open_logs
from qcompile.tune.record import INSTRUCTIONS
from tests.targets.running import AVX2, VNNI
from tests.tune.recorded import convolution, matrix, record, write

LAYER = convolution()


def other_knobs(workload, count=1, target=VNNI):
    """Legal, and not the default."""
    template = TEMPLATES[workload.operator]
    default = template.default(workload, target)
    found = list(itertools.islice((k for k in template.space(workload, target) if k != default), count))
    return found[0] if count == 1 else found


@pytest.fixture
def ask(tmp_path):
    """(workload, records of each log...) -> the schedule."""
    numbers = itertools.count()

    def look_up(workload, *logs, target=VNNI) -> Schedule:
        files = [write(tmp_path / f"{next(numbers)}.db", *records) for records in logs]
        with open_logs(files) as opened:
            return LoggedSchedules(opened, target)(workload)

    return look_up


def test_nothing_is_known_without_records(ask):
    assert ask(LAYER) == ask(LAYER, []) == Schedule(None, DEFAULT)


@pytest.mark.parametrize("layer", [LAYER, matrix(), convolution(depthwise=True), convolution(integer=False)])
def test_the_fastest_record_of_the_workload(ask, layer):
    slow, fast = other_knobs(layer, 2)
    assert ask(layer, [record(layer, VNNI, slow, 9), record(layer, VNNI, fast, 8)]) == Schedule(fast, TUNED)


def test_what_was_timed_goes_before_what_was_counted(ask):
    """Whichever log it is in; a count of exactly this layer goes before the time of another one."""
    counted, timed = other_knobs(LAYER, 2)
    similar = convolution(outputs=128)
    count = record(LAYER, VNNI, counted, costs=(1000.0,), unit=INSTRUCTIONS)
    assert ask(LAYER, [count], [record(LAYER, VNNI, timed)]) == Schedule(timed, TUNED)
    assert ask(LAYER, [count, record(similar, VNNI, other_knobs(similar))]) == Schedule(counted, COUNTED)
    knobs = TEMPLATES[similar.operator].default(similar, VNNI)
    assert ask(LAYER, [record(similar, VNNI, knobs, costs=(1000.0,), unit=INSTRUCTIONS)]).source == TRANSFERRED


def test_failures_are_never_used(ask):
    failed = record(LAYER, VNNI, other_knobs(LAYER), costs=(), error="wrong result")
    assert ask(LAYER, [failed]).source == DEFAULT


def test_the_first_log_that_has_the_workload_wins(ask):
    mine, theirs = other_knobs(LAYER, 2)
    slower, faster = record(LAYER, VNNI, mine, 9), record(LAYER, VNNI, theirs, 1)
    assert ask(LAYER, [slower], [faster]).knobs == mine
    assert ask(LAYER, [], [faster]).knobs == theirs


def test_a_later_log_with_the_workload_goes_before_a_similar_one(ask):
    similar = convolution(outputs=128)
    assert ask(LAYER, [record(similar, VNNI, other_knobs(similar))], [record(LAYER, VNNI, other_knobs(LAYER))]) == (
        Schedule(other_knobs(LAYER), TUNED)
    )


@pytest.mark.parametrize("layer", [LAYER, matrix(), convolution(depthwise=True), convolution(integer=False)])
def test_other_instructions_are_never_used(ask, layer):
    knobs = other_knobs(layer, target=AVX2)
    known = [record(layer, AVX2, knobs), record(convolution(outputs=32), AVX2, "{}")]
    assert ask(layer, known, target=AVX2).source == TUNED
    assert ask(layer, known, target=VNNI) == Schedule()


@pytest.mark.parametrize("batch", [1, 2])
def test_another_template_version_is_never_used(ask, batch):
    layer = convolution(batch=batch)
    old = record(layer, VNNI, other_knobs(layer), template=TEMPLATES["conv2d"].version + 1)
    assert ask(LAYER, [old]) == Schedule()


def test_another_number_format_is_never_used(ask):
    real = convolution(integer=False)
    assert ask(LAYER, [record(real, VNNI, other_knobs(real))]) == Schedule()


@pytest.mark.parametrize(
    "change",
    [
        {"no_such": 1},
        {"rows": 99},
        {"rows": 1.0},
        {"channels_outer": 1},
        {"rows": None},
        {"rows": [1]},
        {"vectors": "1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("of", [LAYER, convolution(batch=8), convolution(outputs=128)])
def test_unknown_and_illegal_knobs_are_passed_over(ask, change, of):
    """Whether they are the workload's own, another batch's, or a similar shape's."""
    good = base = TEMPLATES["conv2d"].default(LAYER, VNNI)
    foreign = json.dumps(json.loads(knobs_json(base)) | change, sort_keys=True, separators=(",", ":"))
    assert ask(LAYER, [record(of, VNNI, foreign, 1)]) == Schedule()
    with_good = ask(LAYER, [record(of, VNNI, foreign, 1)], [record(of, VNNI, good, 2)])
    assert with_good == Schedule(good, TUNED if of.key == LAYER.key else TRANSFERRED)


def test_a_foreign_workload_is_passed_over(ask):
    base = record(LAYER, VNNI, other_knobs(LAYER))
    for key in ('{"operator":"conv2d"}', '{"operator":"conv2d","weight":[0,0,0,0]}', '{"operator":"winograd"}'):
        foreign = dataclasses.replace(base, workload=key)
        assert ask(convolution(outputs=128), [foreign]) == Schedule()
        assert ask(LAYER, [foreign, base]).source == TUNED


def test_another_batch_is_a_hit(ask):
    knobs = other_knobs(LAYER)
    assert ask(convolution(batch=32), [record(LAYER, VNNI, knobs)]) == Schedule(knobs, TUNED)


def test_the_nearest_batch_counts(ask):
    one, eight = other_knobs(LAYER, 2)
    known = [record(LAYER, VNNI, one), record(convolution(batch=8), VNNI, eight)]
    assert ask(convolution(batch=4), known).knobs == eight
    assert ask(convolution(batch=2), known).knobs == one


def test_a_matrix_of_one_row_does_not_make_batches_slow(ask):
    """Its tile has one row because there is no other; with more, there are tiles that use the registers."""
    one, many = matrix(rows=1), matrix(rows=1, batch=64)
    template = TEMPLATES["dense"]
    knobs = template.default(one, VNNI)
    assert knobs.pixels == 1
    found = ask(many, [record(one, VNNI, knobs)])
    assert found.source == TUNED and found.knobs.vectors == knobs.vectors and found.knobs.pixels > 1
    assert template.is_legal(many, VNNI, found.knobs)


def test_a_similar_shape_gives_its_knobs(ask):
    similar = convolution(height=28)
    default = TEMPLATES["conv2d"].default(similar, VNNI)
    knobs = dataclasses.replace(default, channels_outer=not default.channels_outer)
    found = ask(LAYER, [record(similar, VNNI, knobs)])
    assert found == Schedule(knobs, TRANSFERRED)


def test_shapes_of_all_logs_are_compared(ask):
    near, far = convolution(outputs=128), convolution(outputs=256)
    default = TEMPLATES["conv2d"].default(LAYER, VNNI)
    marked = dataclasses.replace(default, channels_outer=not default.channels_outer)
    assert ask(LAYER, [record(far, VNNI, default)], [record(near, VNNI, marked)]).knobs == marked


def test_the_newest_of_equally_near_shapes(ask):
    wide, narrow = convolution(outputs=128), convolution(outputs=32)
    default = TEMPLATES["conv2d"].default(narrow, VNNI)
    marked = dataclasses.replace(default, channels_outer=not default.channels_outer)
    old, new = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    for a, b in ((default, marked), (marked, default)):
        known = [record(wide, VNNI, a, created=old), record(narrow, VNNI, b, created=new)]
        assert ask(LAYER, known).knobs == b


def test_a_log_is_asked_once_a_workload(tmp_path):
    with open_logs(write(tmp_path / "log.db", record(LAYER, VNNI, other_knobs(LAYER)))) as logs:
        schedules = LoggedSchedules(logs, VNNI)
        first = schedules(LAYER)
        logs[0].close()
        assert schedules(convolution()) == first


def test_which_files_are_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    shipped = log_files()  # there is no log of the user yet
    assert all(path.suffix == ".jsonl" for path in shipped)
    write(default_log())
    assert log_files() == log_files("default") == [default_log(), *shipped]
    assert log_files("none") == log_files([]) == []
    assert log_files("a.db,b.db") == log_files(["a.db", "b.db"]) == [Path("a.db"), Path("b.db")]
    assert log_files(tmp_path / "a,b.db") == [tmp_path / "a,b.db"]


def test_a_user_without_a_home_has_no_log(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    assert log_files() == log_files(["default"]) == shipped_logs()


def test_a_log_that_is_named_must_be_there(tmp_path):
    with pytest.raises(QCompileError, match="no such tuning log"), open_logs(tmp_path / "no.db"):
        pass
    assert not os.listdir(tmp_path)


def test_a_log_that_cannot_be_written_serves(tmp_path):
    file = write(tmp_path / "place/log.db", record(LAYER, VNNI, other_knobs(LAYER)))
    file.chmod(0o444)
    file.parent.chmod(0o555)
    before = file.read_bytes()
    try:
        with open_logs(file) as logs:
            assert LoggedSchedules(logs, VNNI)(LAYER).source == TUNED
    finally:
        file.parent.chmod(0o755)
    assert file.read_bytes() == before


def test_other_code_may_write_meanwhile(tmp_path):
    file = write(tmp_path / "log.db")
    with open_logs(file) as logs, TuningLog.open(file) as writer:
        writer.add(record(LAYER, VNNI, other_knobs(LAYER)))
        assert LoggedSchedules(logs, VNNI)(LAYER).source == TUNED
