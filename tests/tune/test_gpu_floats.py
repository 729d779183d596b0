"""Layers of floats on a GPU as the tuner has them: keys, numbers to measure with, and results that pass for right."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.formats import added_as
from qcompile.manifest import Launch
from qcompile.ops import Conv2d, Dense, Epilogue
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import Program, templates
from qcompile.targets.cuda.rows import ROWS
from qcompile.targets.cuda.templates import CONV2D_FLOAT, DENSE_FLOAT, TEMPLATES, stored
from qcompile.targets.cuda.text import NAME
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import Storage
from qcompile.tune.arrays import constants_of, difference, feed_of

ROW = ROWS[0].narrowed("sm_89")
TYPES = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def convolution(dtype: str) -> Workload:
    """With a residual; what it makes is as narrow as what it reads."""
    epilogue = Epilogue(None, (0.0, float("inf")), None, residual_is_float=True)
    spec = Conv2d((2, 2), (1, 1, 1, 1), (1, 1), 1, None, epilogue, dtype, reads=dtype)
    x, out, added = ((1, 24, 9, 7), dtype), ((1, 40, 5, 4), dtype), ((1, 40, 5, 4), added_as(dtype))
    return Workload.of(CONV2D_FLOAT, spec, (40, 24, 3, 3), Storage(*x), Storage(*out), Storage(*added), 1)


def matrix(dtype: str) -> Workload:
    spec = Dense(None, Epilogue(), 0, dtype, dtype)
    return Workload.of(DENSE_FLOAT, spec, (19, 80), Storage((1, 5, 80), dtype), Storage((1, 5, 19), "float32"), None, 1)


WORKLOADS = [make(dtype) for make in (convolution, matrix) for dtype in TYPES]


@pytest.fixture(scope="module")
def built():
    kernels = []
    for workload in WORKLOADS:
        template = TEMPLATES[workload.operator]
        storages = (workload.x, workload.out, workload.residual)
        knobs = template.default(workload, ROW)
        kernels.append(template.build(workload.spec, constants_of(workload), *storages, ROW, knobs))
    texts = [kernel.text.replace(NAME, f"k{i}") for i, (kernel, _) in enumerate(kernels)]
    return kernels, Emulated(templates() + "\n".join(texts), optimize=0)


@pytest.mark.parametrize("number", range(len(WORKLOADS)), ids=lambda i: f"{WORKLOADS[i].operator} {TYPES[i % 5]}")
def test_results_pass_for_right_if_they_are(built, number):
    workload, (kernels, emulated) = WORKLOADS[number], built
    assert Workload.from_key(workload.key, workload.batch) == workload
    (kernel, constants), feed = kernels[number], feed_of(workload)
    x = stored(workload.x).store(workload.x.view(feed.x))
    rest = [] if workload.residual is None else [stored(workload.residual).store(workload.residual.view(feed.residual))]
    buffers, out = [x, *constants, *rest], stored(workload.out)
    places = [(f"input{i}", 0) for i in range(len(buffers))]
    launch = Launch(f"k{number}", kernel.grid, kernel.block, kernel.shared, (*places, ("output0", 0)))
    y = np.zeros(out.numel, out.bits)
    emulated.run(Program("", (launch,), np.zeros(0, np.uint8), 0), buffers, [y])
    assert difference(workload, workload.out.store(out.values(y)), feed.want) == ""
    y[:] = 0
    assert difference(workload, workload.out.store(out.values(y)), feed.want).startswith("wrong result")
