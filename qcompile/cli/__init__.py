"""The command line, a file for each command. It parses, calls the API and prints."""

from qcompile.cli.app import main

__all__ = ["main"]
