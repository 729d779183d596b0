"""Arrays in files: how they become runs of a model, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.cli.feeds import load_npz, runs_of, save_npz
from qcompile.errors import QCompileError
from qcompile.manifest import TensorInfo

X = TensorInfo("x", (2, 3), "float32")
N = TensorInfo("n", (2,), "int64")


def refusal(call, *args) -> str:
    with pytest.raises(QCompileError) as caught:
        call(*args)
    return str(caught.value)


def test_one_run_and_several():
    x, n = np.arange(18, dtype=np.float32).reshape(6, 3), np.arange(6)
    assert len(list(runs_of({"x": x[:2], "n": n[:2]}, [X, N], "f"))) == 1
    runs = list(runs_of({"x": x, "n": n}, [X, N], "f"))
    assert len(runs) == 3
    np.testing.assert_array_equal(runs[1]["x"], x[2:4])
    np.testing.assert_array_equal(runs[2]["n"], [4, 5])


def test_labels_are_for_metrics():
    x = np.ones((2, 3), np.float32)
    (feed,) = runs_of({"x": x, "labels": np.arange(2)}, [X], "f")
    assert set(feed) == {"x"}
    labels = TensorInfo("labels", (2,), "int64")
    (feed,) = runs_of({"labels": np.arange(2)}, [labels], "f")
    assert feed["labels"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros(1)}, "f: the model has no input 'y'; (one of: x, n)"),
        ({"n": np.zeros(2, int)}, "f: no array 'x'; add one of float32 (2, 3)"),
        (
            {"x": np.zeros((2, 3))},
            "f: 'x' is float64, the model takes float32; convert it: array.astype('float32')",
        ),
        (
            {"x": np.zeros((3, 3), np.float32)},
            "f: 'x' has shape (3, 3), the model takes (2, 3); give that shape, or a multiple of its first dimension",
        ),
        (
            {"x": np.zeros((0, 3), np.float32)},
            "f: 'x' has shape (0, 3), the model takes (2, 3); give that shape, or a multiple of its first dimension",
        ),
        (
            {"x": np.zeros((4, 3), np.float32), "n": np.zeros(2, int)},
            "f: inputs differ in their number of runs: 2 of 'x', 1 of 'n'; give as many of each",
        ),
    ],
)
def test_refusals(arrays, message):
    assert refusal(lambda: list(runs_of(arrays, [X, N], "f"))) == message


def test_files_that_are_no_npz(tmp_path):
    assert refusal(load_npz, tmp_path / "no.npz") == f"{tmp_path}/no.npz: No such file or directory; give an .npz file"
    np.save(tmp_path / "a.npy", np.zeros(1))
    remedy = "make one: numpy.savez('x.npz', input_name=array)"
    assert refusal(load_npz, tmp_path / "a.npy") == f"{tmp_path}/a.npy: not an .npz file (a single array); {remedy}"
    (tmp_path / "text").write_text("hello")
    assert refusal(load_npz, tmp_path / "text").startswith(f"{tmp_path}/text: not an .npz file; make one")
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    assert refusal(load_npz, tmp_path / "o.npz").startswith(f"{tmp_path}/o.npz: not an .npz file")


def test_outputs_of_several_runs_are_joined(tmp_path):
    save_npz(
        tmp_path / "y.npz", [{"y": np.zeros((1, 2)), "s": np.float32(1)}, {"y": np.ones((1, 2)), "s": np.float32(2)}]
    )
    saved = load_npz(tmp_path / "y.npz")
    np.testing.assert_array_equal(saved["y"], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(saved["s"], [1, 2])


def test_outputs_of_one_run_keep_their_shape_and_any_name(tmp_path):
    save_npz(tmp_path / "y.npz", [{"file": np.zeros((3,)), "self": np.float32(1)}])
    assert {name: a.shape for name, a in load_npz(tmp_path / "y.npz").items()} == {"file": (3,), "self": ()}


def test_outputs_that_cannot_be_written(tmp_path):
    assert refusal(save_npz, tmp_path / "no/y.npz", [{"y": np.zeros(1)}]) == (
        f"{tmp_path}/no/y.npz: cannot be written: No such file or directory; choose another file"
    )
    assert not list(tmp_path.iterdir())
