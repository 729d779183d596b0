"""What a tuner relies on: keys that tell workloads apart and give them back, and templates that are what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompile.ops import Affine, Conv2d, Dense, Epilogue
from qcompile.targets.kernels.template import knobs_json, knobs_of
from qcompile.targets.kernels.templates import TEMPLATES, instructions
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import BLOCK, Storage
from qcompile.targets.x86 import ROWS
from tests.targets.running import AVX2, VNNI

CODES = Affine(0.1, 3)


def convolution(
    channels=32,
    outputs=48,
    size=9,
    window=3,
    groups=1,
    batch=1,
    integer=True,
    residual=False,
    threads=1,
    dtype="",
    weights="",
):
    pad = window // 2
    dtype = dtype or ("uint8" if integer else "float32")
    x = Storage((batch, channels, size, size), dtype, BLOCK, (pad,) * 4, 3)
    out = Storage((batch, outputs, size, size), dtype, BLOCK)
    epilogue = Epilogue(
        CODES if integer else None,
        (0.0, float("inf")),
        CODES if integer and residual else None,
        residual_is_float=residual and not integer,
    )
    spec = Conv2d((1, 1), (pad,) * 4, (1, 1), groups, CODES if integer else None, epilogue, weights)
    operator = "depthwise_conv2d" if groups == channels else "conv2d"
    weight = (outputs, channels // groups, window, window)
    return Workload.of(operator, spec, weight, x, out, out if residual else None, threads)


def matrix(rows=(4, 7), inputs=40, outputs=24, integer=True, group=0, coded=False):
    spec = Dense(CODES if integer else None, Epilogue(CODES if integer else None), group, "int8" if coded else "")
    dtype = "uint8" if integer else "float32"
    x, out = Storage((*rows, inputs), dtype), Storage((*rows, outputs), dtype)
    return Workload.of("dense_int4" if group else "dense", spec, (outputs, inputs), x, out, None, 1)


WORKLOADS = [
    convolution(),
    convolution(integer=False, residual=True),
    convolution(residual=True, batch=3),
    convolution(48, 48, groups=48),
    convolution(48, 48, groups=48, integer=False),
    convolution(24, 24, groups=3),  # groups that are no whole blocks
    convolution(window=1),
    convolution(integer=False, dtype="bfloat16", weights="bfloat16"),
    convolution(48, 48, groups=48, integer=False, dtype="bfloat16", weights="bfloat16", residual=True),
    convolution(integer=False, weights="int8"),
    convolution(48, 48, groups=48, integer=False, weights="float16"),
    matrix(),
    matrix((5,)),
    matrix(integer=False),
    matrix(integer=False, coded=True),
    matrix(group=8),
    matrix((1,), 64, 40, group=32),
]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: f"{w.operator}-{w.weight}-{w.x.dtype}")
def test_a_key_gives_its_workload_back(workload):
    again = Workload.from_key(workload.key, workload.batch)
    assert again == workload
    assert again.key == workload.key


@given(
    st.integers(1, 100),
    st.integers(1, 100),
    st.integers(1, 30),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_any_convolutions_key_gives_it_back(channels, outputs, size, window, batch, integer, residual):
    workload = convolution(channels, outputs, size, window, 1, batch, integer, residual)
    assert Workload.from_key(workload.key, batch) == workload


def test_numbers_and_batch_are_no_part_of_a_key():
    """Fresh weights give other scales and zero points; a server uses another batch."""
    base = convolution(residual=True)
    x = Storage((8, 32, 9, 9), "uint8", BLOCK, (1,) * 4, 200)
    epilogue = Epilogue(Affine(9.0, 77), None, Affine(1e-3, 1))
    spec = Conv2d((1, 1), (1,) * 4, (1, 1), 1, Affine(0.7, 99), epilogue)
    out = Storage((8, 48, 9, 9), "uint8", BLOCK)
    assert Workload.of("conv2d", spec, (48, 32, 3, 3), x, out, out, 1).key == base.key


@pytest.mark.parametrize(
    "other",
    [
        convolution(outputs=64),
        convolution(size=10),
        convolution(window=5),
        convolution(integer=False),
        convolution(residual=True),
        convolution(threads=2),
        replace(convolution(), out=Storage((1, 48, 9, 9), "uint8", BLOCK, (1, 1, 1, 1))),
    ],
)
def test_what_changes_the_code_changes_the_key(other):
    assert other.key != convolution().key


def test_a_key_is_canonical_json():
    fields = json.loads(convolution().key)
    assert fields["operator"] == "conv2d"
    assert json.dumps(fields, sort_keys=True, separators=(",", ":")) == convolution().key


def test_sequences_share_the_key_of_images_one_pixel_high():
    sequence = Storage((1, 16, 20), "uint8", BLOCK)
    spec = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, CODES, Epilogue(CODES))
    image = Storage((1, 16, 1, 20), "uint8", BLOCK)
    one = Workload.of("conv2d", spec, (16, 16, 1), sequence, sequence, None, 1)
    assert one == Workload.of("conv2d", spec, (16, 16, 1, 1), image, image, None, 1)


@pytest.mark.parametrize("target", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: f"{w.operator}-{w.weight}-{w.x.dtype}")
def test_the_default_is_legal_and_the_prior_ranks_it_well(workload, target):
    template = TEMPLATES[workload.operator]
    default = template.default(workload, target)
    space = list(template.space(workload, target))
    assert default in space
    assert len(set(space)) == len(space)
    costs = sorted(template.cycles(workload, target, knobs) for knobs in space)
    assert costs[0] > 0
    assert template.cycles(workload, target, default) <= 1.5 * costs[0]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: f"{w.operator}-{w.weight}-{w.x.dtype}")
def test_knobs_go_through_json(workload):
    template = TEMPLATES[workload.operator]
    for knobs in template.space(workload, VNNI):
        assert knobs_of(template, knobs_json(knobs)) == knobs


def test_unknown_knobs_are_an_error():
    with pytest.raises(TypeError):
        knobs_of(TEMPLATES["conv2d"], '{"rows":1,"columns":1,"vectors":1,"no_such":3}')


def test_instructions_tell_what_the_code_depends_on():
    integer, real = convolution(), convolution(integer=False)
    assert instructions(integer, VNNI) == "x86-64-v4 vpdpbusd.512 32x512"
    assert instructions(real, VNNI) == "x86-64-v4 fma 32x512"
    assert instructions(integer, AVX2) != instructions(integer, VNNI)
    depthwise, extended = convolution(48, 48, groups=48), VNNI.extended("avx512vbmi")
    assert instructions(integer, extended) == instructions(integer, VNNI)
    assert instructions(depthwise, extended) != instructions(depthwise, VNNI)  # shuffles of bytes are one instruction
    narrow = convolution(integer=False, dtype="bfloat16", weights="bfloat16")
    bfloat16 = VNNI.extended("avx512_bf16")
    assert instructions(narrow, bfloat16) == "x86-64-v4 vdpbf16ps.512 32x512"
    assert instructions(narrow, VNNI) == "x86-64-v4 fma 32x512"
    for workload in (integer, real, depthwise):  # what was measured before the feature was known
        assert instructions(workload, bfloat16) == instructions(workload, VNNI)
    assert narrow.format == "bf16" and narrow.key != real.key


def test_a_key_of_something_else_is_refused():
    with pytest.raises((ValueError, KeyError)):
        Workload.from_key('{"operator":"conv2d"}', 1)
    assert np.isfinite(convolution().macs)
