"""Where tuning logs are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompile.errors import QCompileError
from qcompile.tune import locations
from qcompile.tune.log import TuningLog


def test_the_default_is_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert locations.default_log() == tmp_path / "qcompile" / "tuning.db"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", unset)
        assert locations.default_log() == Path.home() / ".local/share/qcompile/tuning.db"


def test_every_shipped_log_opens():
    for path in locations.shipped_logs():
        with TuningLog.open(path, read_only=True) as log:
            assert len(log)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("none", []),
        (["none"], []),
        ("a.db", ["a.db"]),
        ("a.db, b.jsonl", ["a.db", "b.jsonl"]),
        (["a.db,b.db", "c.db", "a.db"], ["a.db", "b.db", "c.db"]),
        ("./none", ["none"]),
        ("~/x.db", [str(Path.home() / "x.db")]),
    ],
)
def test_locations(texts, expected):
    assert [str(path) for path in locations.parse_locations(texts)] == expected


@pytest.mark.parametrize(
    ("texts", "message"), [("a.db,none", "'none' stands alone"), ("a.db,", "an empty name"), ("", "an empty name")]
)
def test_unusable_locations(texts, message):
    with pytest.raises(QCompileError, match=message):
        locations.parse_locations(texts)
