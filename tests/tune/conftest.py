"""A tuning log of each test's own."""

from __future__ import annotations

import pytest

from qcompile.tune.log import TuningLog


@pytest.fixture
def log(tmp_path):
    with TuningLog.open(tmp_path / "log.db") as opened:
        yield opened
