from __future__ import annotations

import pytest

from qcompile.errors import QCompileError
from qcompile.report.files import check_place, write_whole


@pytest.mark.parametrize(
    ("name", "message"),
    [("none/t.json", "none: no such folder; make it first"), ("here", "here: it is a folder; give the name of a file")],
)
def test_places_where_nothing_can_be_written(tmp_path, name, message):
    (tmp_path / "here").mkdir()
    with pytest.raises(QCompileError) as error:
        check_place(tmp_path / name)
    assert str(error.value).endswith(message)
    check_place(tmp_path / "here" / "t.json")


def test_files_are_written_whole(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    write_whole(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
