"""Tuning logs as text: equal after a round trip, and refused in words where they are unusable."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcompile.errors import QCompileError
from qcompile.tune import log_file
from qcompile.tune.log import TuningLog
from qcompile.tune.record import Record, Search, canonical
from tests.tune.log_items import contents, exported, in_memory, record

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
integers = st.integers(-(2**63), 2**63 - 1)
created = st.datetimes(datetime(2000, 1, 1)).map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%SZ}")
workloads = st.builds(lambda more, name: canonical(more | {"operator": name}), st.dictionaries(text, json_values), text)
tasks = {
    "workload": workloads,
    "batch": st.integers(1, 2**63 - 1),
    "instructions": text,
    "template": integers,
    "created": created,
}
timings = st.lists(st.floats(min_value=0, exclude_min=True, allow_infinity=False), min_size=1, max_size=4).map(tuple)
records = st.builds(
    lambda outcome, **fields: Record(costs=outcome[0], error=outcome[1], **fields),
    outcome=st.tuples(timings, st.just("")) | st.tuples(st.just(()), text.filter(bool)),
    knobs=st.dictionaries(text, json_values, max_size=3).map(canonical),
    device=text,
    cores=integers,
    tools=st.dictionaries(text, text, max_size=2).map(lambda versions: tuple(sorted(versions.items()))),
    footprint=integers,
    **tasks,
)
searches = st.builds(Search, trials=integers, finished=st.booleans(), **tasks)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(items=st.lists(records | searches, max_size=5))
def test_text_round_trip(items):
    with tempfile.TemporaryDirectory() as folder, in_memory() as log, in_memory() as other:
        path = Path(folder) / "a.jsonl"
        log.update(items)
        assert set(log.records()) == {item for item in items if isinstance(item, Record)}
        path.write_text("".join(log_file.lines(log.items())), encoding="utf-8", newline="")
        assert other.update(log_file.read(path)) == len(log)
        assert list(other.items()) == list(log.items()) == contents(path)
        assert other.update(log_file.read(path)) == 0


def test_two_files_after_each_other_are_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(exported(record()) + "\n" + exported(record(2.0)))
    assert contents(path) == [record(), record(2.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.jsonl: empty; give a file written by 'qcompile log export'"),
        ("{}\n", "a.jsonl:1: not the first line of a tuning log"),
        ("[1]\n", "a.jsonl:1: not a JSON object"),
        ("workload,knobs\n", "a.jsonl:1: not JSON; give"),
        ("\x80", "a.jsonl: not text"),
        (exported() + '{"kind":"trial"}\n', "a.jsonl:2: neither a record nor a search"),
        (exported(record())[:-9], "a.jsonl:2: cut off or damaged: not JSON"),
        (exported(record()).replace('"cores":2,', ""), "a.jsonl:2: no 'cores'"),
        (exported(record()).replace('"cores":2', '"cores":"two"'), "a.jsonl:2: cores must be int, not 'two'"),
        (
            exported().replace("1}", "2}"),
            "a.jsonl:1: a tuning log in version 2 of its format; this qcompile reads version 1; use the qcompile that",
        ),
    ],
)
def test_unusable_text(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(QCompileError) as refused:
        TuningLog.open(path, read_only=True)
    assert message in str(refused.value)


def test_text_is_not_written_into(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(QCompileError, match="only read; put it into a log with 'qcompile log import'"):
        TuningLog.open(path)
    path.write_text(exported(record()))
    with pytest.raises(QCompileError, match="only read"):
        TuningLog.open(path)
    with TuningLog.open(path, read_only=True) as log, pytest.raises(QCompileError, match="cannot be written"):
        log.add(record(2.0))
