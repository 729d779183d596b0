from __future__ import annotations

import pytest

from qcompile.targets.kernels import contract, depthwise


@pytest.fixture
def always_fork(monkeypatch):
    """However little work there is, more than one thread shares it."""
    for module in (contract, depthwise):
        monkeypatch.setattr(module, "worth_threads", lambda threads, _: threads > 1)
