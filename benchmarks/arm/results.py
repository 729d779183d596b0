"""The figures of a run in a file, from which the next run takes ONNX Runtime's counts: they stay the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Results:
    """file: None to keep them for this run alone.

    rows: of this run. peers: ONNX Runtime's counts by int8 model (with the version that made it) and CPU.
    """

    def __init__(self, file: Path | None):
        self._file = file
        before = json.loads(file.read_text()) if file is not None and file.exists() else {}
        self.peers: dict[str, Any] = before.get("onnxruntime", {})
        self.rows: list[dict[str, Any]] = []

    def keep(self, name: str, count: Callable[[], Any]) -> Any:
        """What ``count`` found when it was first called for this name."""
        if name not in self.peers:
            self.peers[name] = count()
            self._save()
        return self.peers[name]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._save()

    def _save(self) -> None:
        if self._file is not None:
            text = json.dumps({"rows": self.rows, "onnxruntime": self.peers}, indent=1)
            self._file.write_text(text + "\n", encoding="utf-8")
