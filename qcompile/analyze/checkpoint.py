"""A file to which each sample's sums are appended, so that an interrupted analysis goes on where it stopped."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import IO

import numpy as np

from qcompile.errors import QCompileError

FORMAT, VERSION = "qcompile.analysis", 1


class Checkpoint:
    """Sums by number of the sample: one line of JSON each, behind a line that says what was measured.

    A line that was cut off by a crash is dropped, and the sample measured again.
    """

    def __init__(self, path: Path, fingerprint: str, resume: bool):
        """resume: keep what is there, if it is of the same analysis; an error if it is of another."""
        self.path, self.fingerprint = path, fingerprint
        self.done: dict[int, tuple[str, np.ndarray]] = {}
        kept = self._read() if resume and path.exists() else 0
        try:
            self._file: IO[bytes] = path.open("r+b" if kept else "wb")
        except OSError as error:
            raise QCompileError(
                f"cannot be written: {error.strerror}", node=str(path), remedy="choose another output"
            ) from None
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._write({"format": FORMAT, "version": VERSION, "fingerprint": fingerprint})
            self._flush()

    def add(self, number: int, digest: str, sums: np.ndarray) -> None:
        self.done[number] = digest, sums
        self._append(number, digest, sums)
        self._flush()

    def get(self, number: int, digest: str) -> np.ndarray | None:
        """What is known of a sample; None if nothing is, or it was other data."""
        known = self.done.get(number)
        return known[1] if known is not None and known[0] == digest else None

    def close(self, finished: bool) -> None:
        """A finished analysis needs no checkpoint any more."""
        self._file.close()
        if finished:
            self.path.unlink(missing_ok=True)

    def _append(self, number: int, digest: str, sums: np.ndarray) -> None:
        data = base64.b64encode(np.ascontiguousarray(sums, "<f8").tobytes()).decode()
        self._write({"sample": number, "digest": digest, "shape": sums.shape, "sums": data})

    def _write(self, row: dict) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Takes over the samples of an older file; how many of its bytes are whole lines."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        try:
            head, *rows = [json.loads(line) for line in data[:whole].splitlines()] or [{}]
            if head.get("format", FORMAT) != FORMAT or head.get("version", VERSION) != VERSION:
                raise ValueError("of another format")
            for row in rows:
                sums = np.frombuffer(base64.b64decode(row["sums"]), "<f8").reshape(row["shape"])
                self.done[row["sample"]] = row["digest"], sums
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise QCompileError(
                f"not a checkpoint ({error})", node=str(self.path), remedy="remove it, or run without --resume"
            ) from None
        if head and head.get("fingerprint") != self.fingerprint:
            raise QCompileError(
                "the checkpoint is of another analysis (model, plan, groups, formats or metric differ)",
                node=str(self.path),
                remedy="remove it, or run without --resume",
            )
        return whole
