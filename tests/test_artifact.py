"""Writing and opening artifacts: equal bytes, whole or not at all, damage found."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qcompile import artifact, link
from qcompile.artifact import FILES, check_output, open_artifact
from qcompile.errors import QCompileError
from qcompile.manifest import Manifest, TensorInfo
from qcompile.ops import Affine
from tests.runtime import handmade

needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the handmade library is for x86-64")
pytestmark = needs_x86
ROOT = Path(__file__).parents[1]


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(QCompileError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_manifest_survives_json():
    inputs = (TensorInfo("x:0", (1, 3), "uint8", Affine(0.1, 3)), TensorInfo("t", (), "int64"))
    manifest = handmade.manifest(inputs=inputs, notes=("dynamic batch fixed to 1",))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_two_builds_are_byte_identical(tmp_path):
    """In another process, another folder and another environment."""
    handmade.build(tmp_path / "a")
    code = "import sys; from pathlib import Path; from tests.runtime import handmade; handmade.build(Path(sys.argv[1]))"
    env = {**os.environ, "PYTHONHASHSEED": "7", "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, "b/c/d"], cwd=tmp_path, env=env, check=True)
    assert files(tmp_path / "a") == files(tmp_path / "b/c/d")
    assert set(files(tmp_path / "a")) == set(FILES)


def test_a_new_build_replaces_an_older_artifact(tmp_path):
    handmade.build(tmp_path / "out", notes=("old",))
    handmade.build(tmp_path / "out", notes=("new",))
    assert open_artifact(tmp_path / "out").manifest.notes == ("new",)
    assert os.listdir(tmp_path) == ["out"]


def test_replaces_where_folders_cannot_be_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "_exchange", lambda a, b: False)
    handmade.build(tmp_path / "out", notes=("old",))
    handmade.build(tmp_path / "out", notes=("new",))
    assert open_artifact(tmp_path / "out").manifest.notes == ("new",)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("step", ["link_shared", "_info", "_sync", "_swap"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_an_older_artifact_outlives_a_failed_build(tmp_path, monkeypatch, step, error):
    handmade.build(tmp_path / "out")
    before = files(tmp_path / "out")

    def fail(*args):
        raise error

    monkeypatch.setattr(artifact, step, fail)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else QCompileError) as caught:
        handmade.build(tmp_path / "out", notes=("new",))
    if error is not KeyboardInterrupt:
        assert str(caught.value) == (
            f"{tmp_path / 'out'}: cannot be written: No space left on device; free some space and build again"
        )
    assert files(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


def test_an_older_artifact_comes_back_when_its_place_cannot_be_taken(tmp_path, monkeypatch):
    handmade.build(tmp_path / "out")
    before = files(tmp_path / "out")
    rename = Path.rename

    def fail_once(self, target):
        if not self.name.endswith(".old") and target == tmp_path / "out":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(artifact, "_exchange", lambda a, b: False)
    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(KeyboardInterrupt):
        handmade.build(tmp_path / "out", notes=("new",))
    assert files(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


def test_refuses_a_folder_of_other_things(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    remedy = "name a folder that is new, empty or an older artifact"
    assert refusal(handmade.build, tmp_path / "photos") == (
        f"{tmp_path}/photos: holds files that are not of an artifact: cat.jpg; {remedy}"
    )
    handmade.build(tmp_path / "out")
    (tmp_path / "out/notes.txt").touch()
    assert refusal(check_output, tmp_path / "out") == (
        f"{tmp_path}/out: holds files that are not of an artifact: notes.txt; {remedy}"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/manifest.json").write_text("{}")
    assert "holds files that are not of an artifact: manifest.json" in refusal(check_output, tmp_path / "mine")
    assert refusal(check_output, tmp_path / "out/notes.txt") == f"{tmp_path}/out/notes.txt: is a file; {remedy}"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    check_output(tmp_path / "out")
    handmade.build(tmp_path / "out")
    assert open_artifact(tmp_path / "out")


def test_a_damaged_artifact_may_be_replaced(tmp_path):
    handmade.build(tmp_path / "out")
    (tmp_path / "out/weights.bin").unlink()
    handmade.build(tmp_path / "out")
    assert open_artifact(tmp_path / "out")


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to("real")
    handmade.build(tmp_path / "link")
    handmade.build(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and open_artifact(tmp_path / "real")


def test_says_when_the_parent_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert refusal(check_output, tmp_path / "a/b") == (
        f"{tmp_path}/a/b: cannot be written: no permission there; choose another folder"
    )
    (tmp_path / "file").touch()
    assert "choose another folder" in refusal(check_output, tmp_path / "file/out")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("weights.bin", lambda b: b[:-1], "damaged: not the file that the manifest describes; build the model again"),
        ("model.so", lambda b: b[:100] + b"\xff" + b[101:], "damaged: not the file that the manifest describes;"),
        ("model.so", None, "No such file or directory; build the model again"),
        ("manifest.json", lambda b: b[:-30], "damaged manifest (JSONDecodeError: "),
        ("manifest.json", lambda b: b"{}", "damaged manifest (KeyError: 'format'); build the model again"),
        ("manifest.json", lambda b: b"[]", "damaged manifest (TypeError: "),
        (
            "manifest.json",
            lambda b: b'{"format": "elf"}',
            "damaged manifest (ValueError: not of format qcompile.artifact)",
        ),
        (
            "manifest.json",
            lambda b: b.replace(b'"version": 4', b'"version": 9'),
            "version 9 of the artifact format is not known here; this qcompile reads version 4; build the model again",
        ),
    ],
)
def test_damage_is_named(tmp_path, name, change, message):
    file = handmade.build(tmp_path / "out").path / name
    content = file.read_bytes()
    file.unlink() if change is None else file.write_bytes(change(content))
    assert refusal(open_artifact, tmp_path / "out").startswith(f"{file}: {message}")


def test_a_folder_that_is_no_artifact(tmp_path):
    remedy = "give a folder made by 'qcompile build'"
    assert refusal(open_artifact, tmp_path / "no") == f"{tmp_path}/no: no such folder; {remedy}"
    assert refusal(open_artifact, tmp_path) == (
        f"{tmp_path}: not an artifact (manifest.json: No such file or directory); {remedy}"
    )


def test_manifest_has_no_paths_and_no_times(tmp_path):
    text = json.dumps(json.loads((handmade.build(tmp_path / "out").path / "manifest.json").read_text()))
    assert str(tmp_path) not in text and "/" not in text


def test_sizes_and_plan(tmp_path):
    built = handmade.build(tmp_path / "out")
    assert built.size == sum(len(b) for b in files(tmp_path / "out").values())
    assert built.plan.method == "minmax"
    assert built.manifest.weights.bytes == handmade.WEIGHTS.nbytes
    np.testing.assert_array_equal(np.fromfile(tmp_path / "out/weights.bin", np.uint8), handmade.WEIGHTS)


def test_any_linker_will_do(tmp_path, monkeypatch):
    which = link.shutil.which
    monkeypatch.setattr(link.shutil, "which", lambda name: which(name) if name == "cc" else None)
    if which("cc"):
        handmade.build(tmp_path / "out")
        assert open_artifact(tmp_path / "out")
    monkeypatch.setattr(link.shutil, "which", lambda name: None)
    monkeypatch.setattr(link.importlib.util, "find_spec", lambda name: None)
    assert refusal(handmade.build, tmp_path / "none") == (
        "no linker for x86_64 found (looked for ld.lld, binutils, a C compiler and the ziglang package); "
        "install one: \"pip install 'qcompile[arm]'\", or 'apt install binutils'"
    )
    assert not (tmp_path / "none").exists()
