"""Evaluation data: feeds with whatever stands beside the inputs."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.analyze.data import evaluation_data
from qcompile.errors import QCompileError
from qcompile.model import TensorSpec

X = TensorSpec("x", (2, 3), "float32")


def samples(**arrays):
    return list(evaluation_data(arrays, [X]).samples())


def test_rows_of_labels_go_with_those_of_inputs():
    first, second = samples(x=np.zeros((4, 3)), labels=np.arange(4), scores=np.ones((4, 2)), classes=np.arange(10))
    assert first.labels["labels"].tolist() == [0, 1] and second.labels["labels"].tolist() == [2, 3]
    assert first.labels["scores"].shape == (2, 2) and set(first.labels) == {"labels", "scores"}
    assert first.feed["x"].shape == (2, 3) and first.digest() != second.digest()


def test_samples_are_known_again_in_other_batches():
    values = np.arange(15.0).reshape(5, 3)
    known = []
    for batch in (1, 2, 4):
        data = evaluation_data({"x": values, "labels": np.arange(5) + batch}, [TensorSpec("x", (batch, 3), "float32")])
        known.append([digest for sample in data.samples() for digest in data.digests(sample)])
    assert known[0] == known[1] == known[2] and len(set(known[0])) == 5


@pytest.mark.parametrize("labels", [np.arange(3), np.array(3), np.zeros((2, 2))])
def test_other_numbers_of_labels_are_refused(labels):
    with pytest.raises(QCompileError, match="'labels' has shape .*, and there are 4 samples; give 4 rows"):
        samples(x=np.zeros((4, 3)), labels=labels)


def test_an_input_may_have_the_name_of_labels():
    targets = TensorSpec("targets", (3,), "int64")
    (sample,) = evaluation_data({"targets": np.arange(3)}, [targets]).samples()
    assert sample.feed["targets"].shape == (3,) and not sample.labels
