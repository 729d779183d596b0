"""What holds for every test."""

from __future__ import annotations

import hypothesis
import pytest


@pytest.fixture(scope="session", autouse=True)
def own_data_home(tmp_path_factory):
    """No test sees or changes the tuning log of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data-home")))
        yield


# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("qcompile", deadline=None)
hypothesis.settings.load_profile("qcompile")
