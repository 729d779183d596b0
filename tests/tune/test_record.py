"""Records: what they derive, and what they refuse to hold."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from qcompile.tune.record import INSTRUCTIONS, Record, Search, from_dict, now, to_dict

RECORD = Record(
    workload='{"operator":"conv2d","weight":[64,3,7,7]}',
    batch=1,
    instructions="x86-64-v4 vpdpbusd.512 r32",
    template=1,
    knobs='{"columns":8,"vectors":2}',
    costs=(3e-5, 1e-5, 2e-5),
    error="",
    device="EPYC",
    cores=2,
    created="2026-01-31T23:59:59Z",
    tools=(("qcompile", "0.1.0"), ("tvm", "0.27.0")),
    footprint=1 << 25,
)
FAILED = dataclasses.replace(RECORD, costs=(), error="wrong result")
COUNTED = dataclasses.replace(RECORD, unit=INSTRUCTIONS, costs=(12345.0,))
SEARCH = Search(*dataclasses.astuple(RECORD.task)[:4], 7, True, now())


def test_derived_values():
    assert (RECORD.minimum, RECORD.median, RECORD.operator, RECORD.ok) == (1e-5, 2e-5, "conv2d", True)
    assert RECORD.spread == pytest.approx(1.0)
    assert (FAILED.minimum, FAILED.median, FAILED.spread, FAILED.ok) == (math.inf, math.inf, 0.0, False)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Record) if f.name not in ("costs", "error")])
def test_id_depends_on_every_field(field):
    other = {
        "workload": '{"operator":"dense"}',
        "knobs": "{}",
        "created": "2026-02-01T00:00:00Z",
        "tools": (),
        "unit": INSTRUCTIONS,
    }.get(field)
    if other is None:
        old = getattr(RECORD, field)
        other = old + ("x" if isinstance(old, str) else 1)
    assert dataclasses.replace(RECORD, **{field: other}).id != RECORD.id


def test_id_depends_on_costs_and_error():
    ids = {RECORD.id, FAILED.id, dataclasses.replace(FAILED, error="crashed").id}
    ids |= {dataclasses.replace(RECORD, costs=s).id for s in [(1e-5,), (1e-5, 2e-5, 3e-5)]}
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workload": "{}"}, "no operator"),
        ({"workload": '{"operator": "conv2d"}'}, "no spaces"),
        ({"knobs": '{"b":1,"a":2}'}, "sorted keys"),
        ({"knobs": '{"a":1,"a":2}'}, "sorted keys"),
        ({"knobs": '{"a":NaN}'}, "JSON object"),
        ({"knobs": "[]"}, "JSON object"),
        ({"knobs": {}}, "JSON object"),
        ({"costs": ()}, "either costs or an error"),
        ({"error": "crashed"}, "either costs or an error"),
        ({"costs": (0.0,)}, "positive"),
        ({"costs": (math.nan,)}, "positive"),
        ({"costs": (math.inf,)}, "positive"),
        ({"created": "2026-01-31 23:59:59"}, "created"),
        ({"created": "2026-02-31T23:59:59Z"}, "created"),
        ({"tools": (("tvm", "1"), ("qcompile", "1"))}, "sorted"),
        ({"footprint": 1 << 63}, "64 bits"),
        ({"batch": True}, "batch must be int"),
        ({"batch": 0}, "batch must be 1 or more"),
        ({"unit": "joules"}, "unknown unit 'joules'"),
        ({"device": "\udc80"}, "surrogates"),
    ],
)
def test_what_cannot_be_kept_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECORD, **change)


@pytest.mark.parametrize("item", [RECORD, FAILED, COUNTED, SEARCH, dataclasses.replace(SEARCH, unit=INSTRUCTIONS)])
def test_dictionary_round_trip(item):
    assert from_dict(type(item), json.loads(json.dumps(to_dict(item)))) == item


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"knobs": 1}, "knobs"),
        ({"tools": 1}, "items"),
        ({"seconds": [[]]}, "float"),
        ({"cores": "2"}, "cores must be int"),
        ({"more": 1}, "unknown 'more'"),
    ],
)
def test_foreign_dictionary(change, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Record, to_dict(RECORD) | change)


def test_seconds_are_written_as_before_there_were_units():
    """So that equal records of old and new logs are one."""
    assert to_dict(RECORD)["seconds"] == [3e-5, 1e-5, 2e-5]
    assert not {"unit", "costs"} & {*to_dict(RECORD), *to_dict(SEARCH)}
    assert RECORD.id == "a38aea6eeed11f0101eefb08ca1e61579e984a926921fcaa495cbc3049a0abb1"


def test_missing_key():
    with pytest.raises(ValueError, match="no 'knobs'"):
        from_dict(Record, {k: v for k, v in to_dict(RECORD).items() if k != "knobs"})
