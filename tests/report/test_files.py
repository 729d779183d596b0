from __future__ import annotations

import pytest

from qcompile.report.files import write_whole


def test_files_are_written_whole(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    write_whole(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
