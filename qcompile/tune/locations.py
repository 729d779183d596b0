"""Where tuning logs are: the user's own, those that come with the package, those that a command line names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from qcompile.errors import QCompileError

NONE = "none"
_SHIPPED = Path(__file__).parent / "shipped"


def default_log() -> Path:
    """The log of this user, whether or not it is there yet."""
    home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share"  # as the XDG standard has it
    return base / "qcompile" / "tuning.db"


def shipped_logs() -> list[Path]:
    """Exported logs of common shapes that are part of the package, to be opened read-only."""
    return sorted(_SHIPPED.glob("*.jsonl"))


def parse_locations(texts: str | Sequence[str]) -> list[Path]:
    """The logs that ``--tuning-records`` names, the first to be asked first.

    texts: one list separated by commas, or several. The word "none" alone is no log at all: [].
    """
    names = [name.strip() for text in ([texts] if isinstance(texts, str) else texts) for name in text.split(",")]
    if names == [NONE]:
        return []
    if NONE in names:
        raise QCompileError(
            f"'{NONE}' stands alone", node="--tuning-records", remedy=f"./{NONE} is a file of that name"
        )
    if not names or "" in names:
        raise QCompileError("an empty name", node="--tuning-records", remedy="as in a.db,b.jsonl")
    return list(dict.fromkeys(Path(name).expanduser() for name in names))
