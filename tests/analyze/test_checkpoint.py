"""What an interrupted analysis leaves, and what is made of it."""

from __future__ import annotations

import numpy as np
import pytest

import qcompile as qc
from qcompile.analyze.checkpoint import Checkpoint

SUMS = np.arange(6, dtype=np.float64).reshape(2, 3) / 7


@pytest.fixture
def path(tmp_path):
    """A checkpoint with samples 0 and 1."""
    kept = Checkpoint(tmp_path / "c", "mine", resume=False)
    for number in range(2):
        kept.add(number, f"digest{number}", SUMS + number)
    kept.close(finished=False)
    return tmp_path / "c"


def test_sums_come_back_to_the_bit(path):
    kept = Checkpoint(path, "mine", resume=True)
    np.testing.assert_array_equal(kept.get(1, "digest1"), SUMS + 1)
    assert kept.get(1, "other data") is None and kept.get(2, "digest2") is None


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_was_cut_off_is_dropped(path, cut):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    kept = Checkpoint(path, "mine", resume=True)
    assert kept.get(1, "digest1") is None
    np.testing.assert_array_equal(kept.get(0, "digest0"), SUMS)
    kept.add(1, "digest1", SUMS + 1)
    assert path.read_bytes() == whole


def test_without_resume_it_starts_anew(path):
    assert Checkpoint(path, "other", resume=False).get(0, "digest0") is None


@pytest.mark.parametrize(
    "text", [b"not JSON\n", b"[]\n", b'{"format": "other"}\n', b'{"format": "qcompile.analysis"}\n{}\n']
)
def test_what_is_none_is_refused_and_kept(path, text):
    path.write_bytes(text)
    with pytest.raises(qc.QCompileError, match="checkpoint"):
        Checkpoint(path, "mine", resume=True)
    assert path.read_bytes() == text


def test_a_finished_one_is_gone(path):
    Checkpoint(path, "mine", resume=True).close(finished=True)
    assert not path.exists()


def test_no_folder(tmp_path):
    with pytest.raises(qc.QCompileError, match="cannot be written: No such file"):
        Checkpoint(tmp_path / "missing" / "c", "mine", resume=False)
