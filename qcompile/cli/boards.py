"""Options that name a machine behind TVM's RPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.errors import QCompileError

if TYPE_CHECKING:
    from qcompile.rpc.places import Server, Tracker

RpcServer = Annotated[
    str | None, typer.Option("--rpc", metavar="HOST:PORT", help="On the machine of this TVM RPC server.")
]
RpcTracker = Annotated[
    str | None, typer.Option("--rpc-tracker", metavar="HOST:PORT", help="On a machine of this TVM tracker.")
]
RpcKey = Annotated[str | None, typer.Option("--rpc-key", help="What the machine is called there.")]


def board_of(server: str | None, tracker: str | None, key: str | None) -> Server | Tracker | None:
    """The place that the options name; None for this machine."""
    from qcompile.rpc.places import Server, Tracker

    if server is not None:
        if tracker is not None or key is not None:
            raise QCompileError("a server needs no tracker and no key", node="--rpc", remedy="leave one of them out")
        return Server(*_address("--rpc", server))
    if tracker is None and key is None:
        return None
    if tracker is None or key is None:
        raise QCompileError(
            "a machine of a tracker needs both its address and a key",
            node="--rpc-tracker",
            remedy="give --rpc-tracker HOST:PORT --rpc-key KEY",
        )
    return Tracker(*_address("--rpc-tracker", tracker), key)


def _address(option: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise QCompileError(f"'{text}' is no address", node=option, remedy="write it as HOST:PORT, as in 10.0.0.5:9090")
    return host.strip("[]"), int(port)
