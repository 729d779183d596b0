from __future__ import annotations

import errno

import pytest

from qcompile.errors import QCompileError
from qcompile.report.files import check_place, make_folder, write_whole


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
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(QCompileError, match=r"plan.json: cannot be written: No space left on device; free some space"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_folders(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(QCompileError, match="file: it is a file; name a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(QCompileError, match="file/c: the folder cannot be made: Not a directory"):
        make_folder(tmp_path / "file" / "c")
