"""The command line: ``qcompile build | run | bench | inspect | targets``. It parses, calls the API and prints."""

from qcompile.cli.app import main

__all__ = ["main"]
