"""The package as a whole: what imports what, what is installed, what loading it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import qcompile as qc

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = (  # imports point from later to earlier; within a layer a member imports itself only
    {"errors"},
    {"ops", "formats", "versioned"},
    {"plan", "link"},
    {"model", "graph"},
    {"manifest"},
    {"artifact"},
    {"runtime"},
    {"package"},
    {"reference"},
    {"targets"},
    {"passes", "frontend"},
    {"compile", "compile_cuda", "layers", "importing", "scaled"},
    {"calibrate"},
    {"assign"},
    {"rpc"},
    {"tune"},
    {"build", "simulate"},
    {"analyze"},
    {"mixed"},
    {"bench"},
    {"report"},
    {"cli"},
    {"__main__"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    found = {}
    for folder, prefix in (("qcompile", "qcompile"), ("passes", "qcompile.passes"), ("targets", "qcompile.targets")):
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "qcompile" and parts[0] in ("passes", "targets"):
                continue  # through the link: the same files
            found[".".join([prefix, *(p for p in parts if p != "__init__")])] = file
    return found


def imported(file: Path) -> set[str]:
    """Members of qcompile ("passes", "ops", ...) that a file imports anywhere, for type checkers included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("qcompile.")}


def test_imports_point_one_way():
    wrong = []
    for name, file in modules().items():
        if name == "qcompile":
            continue  # the public names, loaded late
        member = name.split(".")[1]
        wrong += [
            f"{name} imports qcompile.{other}"
            for other in imported(file) - {"__version__", member}
            if RANK[other] >= RANK[member]
        ]
    assert not wrong


def test_every_package_is_listed():
    """setuptools takes the packages that pyproject.toml lists, and no others."""
    folders = {name for name, file in modules().items() if file.name == "__init__.py"}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == folders
    without = {f.parent for f in modules().values()} - {f.parent for f in modules().values() if f.name == "__init__.py"}
    assert not without, "folders of modules without __init__.py"


def test_pinned_versions_are_in_force():
    """TVM 0.27 crashes with other FFI releases: the pins must stand in the metadata, and hold here."""
    pins = {r.name: r.specifier for r in map(Requirement, PYPROJECT["project"]["dependencies"])}
    for package in ("apache-tvm", "apache-tvm-ffi"):
        assert str(pins[package]) == f"=={version(package)}"
    installed = {r.name: r.specifier for r in map(Requirement, requires("qcompile") or [])}
    assert installed["apache-tvm-ffi"] == pins["apache-tvm-ffi"]


def test_version_is_the_package_version():
    assert qc.__version__ == PYPROJECT["project"]["version"]


@pytest.mark.parametrize("code", ["import qcompile", "import qcompile.cli", "import qcompile; qcompile.load"])
def test_light_imports_load_no_compiler(code):
    heavy = "{'tvm', 'onnx', 'onnxruntime', 'openvino', 'networkx'}"
    check = f"{code}; import sys; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("name", qc.__all__)
def test_public_names_exist(name):
    assert getattr(qc, name) is not None
    assert name in dir(qc)


def test_public_names_are_all_listed():
    assert set(qc.__all__) == set(qc._HOMES)


def test_functions_are_not_hidden_by_modules_of_their_name():
    import qcompile.calibrate  # noqa: F401

    assert callable(qc.calibrate)


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="module 'qcompile' has no attribute 'bild'"):
        qc.bild  # noqa: B018
