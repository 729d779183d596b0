"""What holds for every test."""

from __future__ import annotations

import hypothesis
import pytest


@pytest.fixture(scope="session", autouse=True)
def own_data_home(tmp_path_factory, pytestconfig):
    """No test sees or changes the tuning log or the cache of whoever runs it; compiled runners are kept by pytest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data-home")))
        patch.setenv("XDG_CACHE_HOME", str(pytestconfig.cache.mkdir("home")))
        yield


@pytest.fixture(scope="session")
def cuda_compiler():
    """NVRTC or nvcc; a test that needs it is skipped, with the reason, where there is neither."""
    from qcompile.errors import QCompileError
    from qcompile.targets.cuda.compiler import find_compiler

    try:
        return find_compiler()
    except QCompileError as error:
        pytest.skip(str(error))


# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("qcompile", deadline=None)
hypothesis.settings.load_profile("qcompile")
