"""The command line, called in this process."""

from __future__ import annotations

import pytest

from qcompile.cli import main


@pytest.fixture
def cli(capsys):
    """``cli("run", path)`` -> (exit code, stdout, stderr)."""

    def call(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        return stopped.value.code, *capsys.readouterr()

    return call
