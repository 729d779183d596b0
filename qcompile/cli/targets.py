"""``qcompile targets``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.cli.console import show, show_json

if TYPE_CHECKING:
    from qcompile.targets.cuda.rows import CudaTarget
    from qcompile.targets.target import Target


def targets(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List what can be built for, best first.

    A row may be extended by optional features: x86-vnni+avx512vbmi. "native" (or "x86") is the best row of this
    machine with the optional features that it has, "arm" is arm-dotprod. "cuda" holds code of every architecture,
    cuda:sm_90 of one.
    """
    from qcompile.errors import QCompileError
    from qcompile.report.tables import table
    from qcompile.targets.cuda import rows as cuda
    from qcompile.targets.rows import ROWS as CPUS
    from qcompile.targets.select import can_run, select_target

    every: list[Target | CudaTarget] = [*CPUS, *cuda.ROWS]
    try:
        best = select_target("native").name
    except QCompileError:
        best = ""
    if as_json:
        show_json(
            {
                "native": best,
                "targets": [
                    {
                        "name": row.name,
                        "description": row.description,
                        "runs_here": can_run(row),
                        "features": row.features,
                        "optional": [feature for feature, _ in row.optional],
                    }
                    for row in every
                ],
            }
        )
        return
    rows = [
        [row.name, "yes" if can_run(row) else "no", ", ".join(f for f, _ in row.optional), row.description]
        for row in every
    ]
    show(table(["target", "runs here", "optional features", "for"], rows))
    show(f"native: {best or 'none of them'}")
