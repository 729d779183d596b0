from __future__ import annotations

import json

import pytest

from qcompile.errors import QCompileError
from qcompile.versioned import FileKind

KIND = FileKind(3, "the thing format", "make it again", "not a thing", "give a thing", "qcompile.thing")


def refusal(text: str) -> str:
    with pytest.raises(QCompileError) as error:
        KIND.decode(text, "t.json", lambda data: data["x"])
    return str(error.value)


def test_the_decoder_gets_what_is_behind_the_head():
    assert KIND.decode(json.dumps({**KIND.head, "x": 1}), "t.json", dict) == {"x": 1}
    plain = FileKind(1, "a format", "again", "not one", "give one")
    assert plain.head == {"version": 1} and plain.decode('{"version": 1, "format": "x"}', "p", dict) == {"format": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "t.json: not a thing (JSONDecodeError: Expecting property name"),
        ("[]", "t.json: not a thing (TypeError: "),
        ('{"version": 3}', "t.json: not a thing (KeyError: 'format'); give a thing"),
        ('{"format": "x", "version": 3}', "t.json: not a thing (ValueError: not of format qcompile.thing)"),
        (json.dumps(KIND.head), "t.json: not a thing (KeyError: 'x'); give a thing"),
        (
            json.dumps({**KIND.head, "version": 4}),
            "t.json: version 4 of the thing format is not known here; this qcompile reads version 3; make it again",
        ),
    ],
)
def test_anything_else_is_refused(text, message):
    assert refusal(text).startswith(message)


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "t.json"
    for write, message in ((None, "No such file or directory; give a thing"), (b"\xff", "not a thing ('utf-8' codec")):
        if write is not None:
            path.write_bytes(write)
        with pytest.raises(QCompileError) as error:
            KIND.read(path, dict)
        assert str(error.value).startswith(f"{path}: {message}")
