"""What the count of ONNX Runtime stands on: a root that is put together, and figures that are kept."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import onnxruntime

from benchmarks.arm import root
from benchmarks.arm.cpus import CPUS, root_of
from benchmarks.arm.peer import _nothing
from benchmarks.arm.results import Results
from qcompile.runtime.emulate import launcher
from qcompile.targets.arm import CORES, ROWS
from tests.building import with_island


def test_every_row_has_a_cpu_whose_features_it_needs(monkeypatch):
    monkeypatch.setattr("qcompile.runtime.emulate.shutil.which", lambda name: name)
    monkeypatch.setattr("qcompile.runtime.emulate.platform.machine", lambda: "x86_64")
    for row in (*ROWS, *CORES):
        cpu = CPUS[launcher(row.triple, row.features)[-1]]
        assert set(row.features) <= set(cpu.features.split()), row.name


def test_a_root_describes_the_cpu_alone(tmp_path):
    base = tmp_path / "base"
    (base / "usr/bin").mkdir(parents=True)
    (base / "proc").mkdir()
    (base / "proc/cpuinfo").write_text("another")
    made = root_of(CPUS["neoverse-n1"], base, tmp_path)
    assert (made / "usr/bin").is_dir()
    text = (made / "proc/cpuinfo").read_text()
    assert "asimddp" in text and "i8mm" not in text and "0xd0c" in text


def test_packages_are_unpacked(tmp_path):
    """An ar archive, one member of odd length before the data."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as files:
        info = tarfile.TarInfo("./usr/lib/a.txt")
        info.size = 5
        files.addfile(info, io.BytesIO(b"hello"))

    def member(name: bytes, content: bytes) -> bytes:
        return name.ljust(48) + str(len(content)).encode().ljust(10) + b"`\n" + content + b"\n" * (len(content) % 2)

    package = b"!<arch>\n" + member(b"debian-binary", b"2.0") + member(b"data.tar.xz", data.getvalue())
    root._unpack(package, tmp_path)
    assert (tmp_path / "usr/lib/a.txt").read_text() == "hello"


def test_an_entry_of_the_index_is_read():
    entry = "Package: libc6\nDescription: GNU C Library\n of many lines: some\nSHA256: ab\n"
    assert dict(root._fields(entry)) == {"Package": "libc6", "Description": "GNU C Library", "SHA256": "ab"}


def test_the_model_that_does_nothing_takes_the_same_inputs():
    nothing = _nothing(with_island())
    session = onnxruntime.InferenceSession(nothing.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.arange(18, dtype=np.float32).reshape(3, 6)
    (y,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(y, x)


def test_counts_of_peers_are_made_once(tmp_path):
    file, made = tmp_path / "arm.json", []

    def count() -> int:
        made.append(1)
        return 7

    for _ in range(2):
        results = Results(file)
        assert results.keep("model on cpu", count) == 7
        results.add({"model": "a"})
        assert results.rows == [{"model": "a"}]
    assert made == [1]
    assert Results(None).keep("model on cpu", count) == 7 and made == [1, 1]
