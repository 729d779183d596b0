"""Files of JSON whose first keys say what they are and in what version."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qcompile.errors import QCompileError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileKind:
    """What files of one kind say of themselves, and what people are told of files that do not.

    version: the one that is read here, under the key "version". format: under the key "format"; "" for a kind without.
    title: what has versions ("the plan format"). again: what to do about a file of another version ("make the plan
    again"). otherwise: what anything else is ("not a quantization plan"); remedy: what to do about it.
    """

    version: int
    title: str
    again: str
    otherwise: str
    remedy: str
    format: str = ""

    @property
    def head(self) -> dict[str, Any]:
        """The first keys of such a file."""
        return {**({"format": self.format} if self.format else {}), "version": self.version}

    def decode(self, text: str, where: str, decoder: Callable[[dict[str, Any]], T]) -> T:
        """What ``decoder`` makes of the other keys.

        Raises QCompileError for another version; and for anything that is no JSON of this kind, or that ``decoder``
        raises ValueError, KeyError, TypeError or AttributeError for.
        """
        try:
            data = json.loads(text)
            if self.format and data.pop("format") != self.format:
                raise ValueError(f"not of format {self.format}")
            if (version := data["version"]) != self.version:
                reason = f"version {version} of {self.title} is not known here"
                remedy = f"this qcompile reads version {self.version}; {self.again}"
                raise QCompileError(reason, node=where, remedy=remedy)
            del data["version"]
            return decoder(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{self.otherwise} ({type(error).__name__}: {error})"
            raise QCompileError(reason, node=where, remedy=self.remedy) from None

    def read(self, path: str | Path, decoder: Callable[[dict[str, Any]], T]) -> T:
        """``decode`` of a file in UTF-8; QCompileError too for one that cannot be read."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise QCompileError(error.strerror or str(error), node=str(path), remedy=self.remedy) from None
        except UnicodeDecodeError as error:
            raise QCompileError(f"{self.otherwise} ({error})", node=str(path), remedy=self.remedy) from None
        return self.decode(text, str(path), decoder)
