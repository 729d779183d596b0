"""``qcompile package``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcompile.cli.console import show, step
from qcompile.cli.options import OUT


def package(
    path: Annotated[Path, typer.Argument(help="The artifact folder.")],
    out: Annotated[Path, typer.Option(*OUT, help="The archive to write, .tar.gz.")],
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of defects.")] = False,
) -> None:
    """Pack a built model with all that running it takes: a static C runner and one in Python, no TVM.

    \b
    Examples:
      qcompile package out-arm/ -o model-arm.tar.gz
    """
    from qcompile.package import package as write
    from qcompile.report.files import check_place
    from qcompile.report.units import size

    check_place(out)
    with step("packing"):
        written = write(path, out)
    show(f"package    {written} ({size(written.stat().st_size)})")
