from __future__ import annotations

import pytest
import typer

from qcompile.cli.app import app
from qcompile.cli.options import OUT, input_shapes, names
from qcompile.errors import QCompileError


@pytest.mark.parametrize(
    ("values", "shapes"),
    [
        (["x:[1,3,224,224]"], {"x": (1, 3, 224, 224)}),
        (["x: [1, 3]", "y:[2]"], {"x": (1, 3), "y": (2,)}),
        (["x:[1,3];y:[2]"], {"x": (1, 3), "y": (2,)}),
        (["x:[1,3] y:[2]"], {"x": (1, 3), "y": (2,)}),
        (["scope/x:0:[1]"], {"scope/x:0": (1,)}),
        (["x:[]"], {"x": ()}),
        ([], {}),
    ],
)
def test_input_shapes(values, shapes):
    assert input_shapes(values) == shapes


@pytest.mark.parametrize("value", ["x", "x:1,3", "[1,3]", "x:[1,a]", "x:[1 2]"])
def test_refuses_other_spellings(value):
    with pytest.raises(QCompileError) as caught:
        input_shapes([value])
    assert str(caught.value) == f"""--input-shapes: '{value}' is not a shape; write it as "x:[1,3,224,224]\""""


def test_names():
    assert names(["a,b", " c ", ""]) == ("a", "b", "c")


def test_every_command_spells_its_output_alike():
    """``run`` has ``--outputs``, beside ``--inputs``."""
    commands = dict(typer.main.get_command(app).commands)
    commands |= {f"log {name}": command for name, command in commands.pop("log").commands.items()}
    spelled = {name: p.opts for name, command in commands.items() for p in command.params if "-o" in p.opts}
    assert spelled.pop("run") == ["-o", "--outputs"]
    assert set(spelled) == {"analyze", "assign", "build", "package", "log merge", "log export"}
    assert all(tuple(opts) == OUT for opts in spelled.values())
