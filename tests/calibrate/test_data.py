from __future__ import annotations

import itertools
import tracemalloc
import zipfile

import numpy as np
import pytest

from qcompile.calibrate import RANDOM_DATA_WARNING, calibration_data, random_data
from qcompile.errors import QCompileError
from qcompile.model import TensorSpec

X = TensorSpec("x", (1, 2, 3), "float32")
IDS = TensorSpec("ids", (1, 4), "int64")
RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(5, 2, 3)).astype(np.float32)
TOKENS = np.arange(20).reshape(5, 4)


def message(source, inputs=(X,), num_samples=None) -> str:
    with pytest.raises(QCompileError) as error:
        list(calibration_data(source, inputs, num_samples))
    return str(error.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_gives_its_samples_one_by_one(tmp_path, save):
    save(tmp_path / "calib.npz", x=VALUES, ids=TOKENS)
    data = calibration_data(tmp_path / "calib.npz", [X, IDS])
    for _ in range(2):  # again from the start
        feeds = list(data)
        assert [set(feed) for feed in feeds] == [{"x", "ids"}] * 5
        assert feeds[0]["x"].shape == X.shape and feeds[0]["ids"].shape == IDS.shape
        np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), VALUES)
        np.testing.assert_array_equal(np.concatenate([feed["ids"] for feed in feeds]), TOKENS)


def test_fortran_order_and_big_endian_arrays_are_read_right(tmp_path):
    np.savez(tmp_path / "calib.npz", x=np.asfortranarray(VALUES.astype(">f8")))
    (first, *_) = calibration_data(str(tmp_path / "calib.npz"), [X])
    np.testing.assert_array_equal(first["x"][0], VALUES[0])
    assert first["x"].dtype == "=f4"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, save):
    save(tmp_path / "calib.npz", x=np.zeros((1000, 100, 100), np.float32))  # 40 MB
    tracemalloc.start()
    count = sum(1 for _ in calibration_data(tmp_path / "calib.npz", [TensorSpec("x", (1, 100, 100), "float32")]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1000
    assert peak < 2_000_000


def test_num_samples_takes_the_first(tmp_path):
    np.savez(tmp_path / "calib.npz", x=VALUES)
    assert len(list(calibration_data(tmp_path / "calib.npz", [X], num_samples=3))) == 3
    assert len(list(calibration_data(tmp_path / "calib.npz", [X], num_samples=30))) == 5
    assert message(tmp_path / "calib.npz", num_samples=0) == "0 calibration samples asked for; ask for 1 or more"
    endless = ({"x": VALUES[0]} for _ in itertools.count())
    assert len(list(calibration_data(endless, [X], num_samples=2))) == 2


def test_a_model_with_a_batch_is_fed_so_many_at_a_time():
    spec = TensorSpec("x", (2, 2, 3), "float32")
    data = calibration_data([{"x": VALUES[:3]}, {"x": VALUES[3]}, {"x": VALUES[4:]}], [spec])
    feeds = list(data)
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), VALUES[[0, 1, 2, 3, 4, 0]])
    assert data.notes == ["5 samples are no multiple of the batch of 2: 1 of them fill the last"]
    assert data.rows == 5


def test_labels_beside_the_inputs_are_passed_over():
    feeds = list(calibration_data({"x": VALUES, "labels": np.arange(5), "targets": np.arange(3)}, [X]))
    assert len(feeds) == 5 and set(feeds[0]) == {"x"}


def test_fewer_samples_than_the_batch_are_repeated():
    (feed,) = calibration_data({"x": VALUES[:3]}, [TensorSpec("x", (8, 2, 3), "float32")])
    np.testing.assert_array_equal(feed["x"], VALUES[[0, 1, 2, 0, 1, 2, 0, 1]])


def test_inputs_that_share_no_first_dimension_are_stacked_whole():
    inputs = [TensorSpec("x", (2, 3), "float32"), TensorSpec("t", (), "float32")]
    feeds = list(calibration_data({"x": VALUES, "t": np.arange(5.0)}, inputs))
    assert [float(feed["t"]) for feed in feeds] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(feeds[4]["x"], VALUES[4])
    assert feeds[0]["t"].shape == ()
    (feed,) = calibration_data({"x": VALUES[0], "t": 2.0}, inputs)
    assert feed["t"] == 2.0


def test_stacked_feeds_are_taken_apart():
    inputs = [TensorSpec("x", (2, 3), "float32")]  # time first, say
    feeds = list(calibration_data({"x": VALUES}, inputs))
    np.testing.assert_array_equal(np.stack([feed["x"] for feed in feeds]), VALUES)
    assert len(list(calibration_data({"x": VALUES[:, None]}, [X]))) == 5


def test_a_folder_is_read_in_order_of_names_samples_and_batches_alike(tmp_path):
    np.save(tmp_path / "a.npy", VALUES[0])
    np.savez(tmp_path / "b.npz", x=VALUES[1:4])
    np.save(tmp_path / "c.npy", VALUES[4:])
    (tmp_path / "README.md").write_text("not data")
    feeds = list(calibration_data(tmp_path, [X]))
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), VALUES)


def test_an_object_with_get_next_is_read_to_its_end():
    class Reader:
        def __init__(self):
            self.left = [{"x": row[None]} for row in VALUES]

        def get_next(self):
            return self.left.pop(0) if self.left else None

    assert len(list(calibration_data(Reader(), [X]))) == 5


def test_casts_that_keep_values_are_made():
    mask = TensorSpec("ids", (1, 4), "int32")
    (feed,) = calibration_data({"ids": TOKENS[:1]}, [mask])
    assert feed["ids"].dtype == np.int32
    (feed,) = calibration_data({"ids": np.array([[True, False, True, True]])}, [IDS])
    assert feed["ids"].tolist() == [[1, 0, 1, 1]]
    (feed,) = calibration_data({"x": VALUES[0].astype(np.float16)}, [X])
    assert feed["x"].dtype == np.float32
    text = message({"ids": TOKENS + 2**40}, [mask])
    assert text == "calibration sample 0, key 'ids': values of sample 0 do not fit int32; convert the data to int32"


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"xs": VALUES}, "the model has no input 'xs'; did you mean 'x'? (one of: x, ids)"),
        ({"x": VALUES}, "no data for input 'ids'; add an array 'ids' of shape (samples, 4)"),
        (
            {"x": VALUES, "ids": TOKENS[:3]},
            "inputs differ in their number of samples: 5 of 'x', 3 of 'ids'; give as many of each",
        ),
        ({}, "no data for input 'x'; add an array 'x' of shape (samples, 2, 3)"),
    ],
)
def test_keys_that_do_not_match(tmp_path, arrays, expected):
    path = tmp_path / "calib.npz"
    np.savez(path, **arrays)
    assert message(path, [X, IDS]) == f"{path}: {expected}"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (VALUES.reshape(5, 3, 2), "shape (5, 3, 2) does not fit the input's (1, 2, 3); give (samples, 2, 3)"),
        (np.float32(1), "shape () does not fit the input's (1, 2, 3); give (samples, 2, 3)"),
        (
            np.zeros((5, 2, 3), np.uint8),
            "dtype uint8 does not fit the input's float32; "
            "convert it to float32, with the preprocessing that the model expects",
        ),
        (np.zeros((5, 2, 3), object), "holds Python objects, not numbers; save arrays of a numeric dtype"),
        (
            np.where(np.arange(5)[:, None, None] == 3, np.nan, VALUES),
            "NaN in sample 3; remove the sample or mend its values",
        ),
        (
            np.where(np.arange(5)[:, None, None] == 1, -np.inf, VALUES),
            "infinity in sample 1; remove the sample or mend its values",
        ),
        (np.full((5, 2, 3), 1e300), "infinity in sample 0; remove the sample or mend its values"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_arrays_that_do_not_match(tmp_path, array, expected):
    path = tmp_path / "calib.npz"
    np.savez(path, x=array)
    assert message(path) == f"{path}, key 'x': {expected}"


def test_floats_for_an_integer_input_are_refused():
    assert message({"ids": TOKENS.astype(float)}, [IDS]) == (
        "calibration sample 0, key 'ids': dtype float64 does not fit the input's int64; "
        "convert it to int64, with the preprocessing that the model expects"
    )


@pytest.mark.parametrize("source", [[], {"x": VALUES[:0]}])
def test_no_samples(source):
    assert message(source) == "no calibration samples; give at least one"


def test_things_that_are_not_calibration_data(tmp_path):
    advice = "give an .npz whose keys are the names of the inputs"
    assert message(tmp_path) == f"{tmp_path}: no .npy or .npz file in this folder; {advice}"
    assert message(tmp_path / "calib.txt") == f"{tmp_path}/calib.txt: not an .npz file or a folder; {advice}"
    assert message([VALUES[0]]) == "calibration sample 0: a ndarray, not a dict; give dicts: input name -> array"
    assert message([{"x": [[1.0], [2.0, 3.0]]}]).startswith("calibration sample 0, key 'x': not an array: ")
    np.save(tmp_path / "a.npy", VALUES)
    assert message(tmp_path, [X, IDS]) == (
        f"{tmp_path}/a.npy: an .npy file cannot feed 2 inputs; give .npz files with keys 'x', 'ids'"
    )


def test_files_that_cannot_be_read(tmp_path):
    advice = "write it again with numpy.save or numpy.savez"
    path = tmp_path / "calib.npz"
    assert message(path) == f"{path}: no such file; check the path"
    path.write_bytes(b"hello")
    assert message(path) == f"{path}: cannot be read (File is not a zip file); {advice}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"hello, this is not an array")
    assert message(path).startswith(f"{path}, key 'x': cannot be read (the magic string is not correct")
    np.save(tmp_path / "x.npy", VALUES)
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-30])
    assert message(tmp_path / "x.npy") == f"{tmp_path}/x.npy: cannot be read (it ends in row 3 of 5); {advice}"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_contents_of_an_archive_are_noticed(tmp_path, save):
    path = tmp_path / "calib.npz"
    save(path, x=RNG.normal(size=(50, 2, 3)).astype(np.float32))
    content = bytearray(path.read_bytes())
    content[600] ^= 0xFF
    path.write_bytes(content)
    assert message(path).startswith(f"{path}, key 'x': cannot be read (")


def test_bad_names_are_found_before_anything_is_run(tmp_path):
    np.savez(tmp_path / "calib.npz", y=VALUES)
    with pytest.raises(QCompileError, match="the model has no input 'y'"):
        calibration_data(tmp_path / "calib.npz", [X])


def test_random_data_is_noise_of_the_right_kind():
    specs = [X, IDS, TensorSpec("image", (1, 3, 16, 16), "uint8"), TensorSpec("mask", (1, 8), "bool")]
    feeds = list(random_data(specs, count=3, seed=1))
    assert len(feeds) == 3
    for feed in feeds:
        assert {name: (a.shape, str(a.dtype)) for name, a in feed.items()} == {
            s.name: (s.shape, s.dtype) for s in specs
        }
        assert set(feed["ids"].flat) <= {0, 1}
        assert feed["image"].max() > 200
    again = list(random_data(specs, count=3, seed=1))
    np.testing.assert_array_equal(feeds[2]["x"], again[2]["x"])
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])
    assert len(list(calibration_data(random_data([X]), [X]))) == 8


def test_nobody_can_miss_the_warning():
    assert "RANDOM NOISE" in RANDOM_DATA_WARNING
    assert len({len(line) for line in RANDOM_DATA_WARNING.splitlines()}) == 1  # a closed box
