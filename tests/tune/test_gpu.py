"""Candidates for GPUs: built, checked and timed through a driver that emulates the kernels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from qcompile.errors import QCompileError
from qcompile.ops import Affine, Conv2d, Dense, Epilogue
from qcompile.runtime import driver
from qcompile.targets.cuda.emulate import emulated_library
from qcompile.targets.cuda.program import templates
from qcompile.targets.cuda.rows import ROWS
from qcompile.targets.cuda.text import NAME
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import Storage
from qcompile.tune.arrays import constants_of
from qcompile.tune.gpu import HERE, Gpu, GpuMeasurer, opened, row_for
from qcompile.tune.gpu_builder import build_kernels
from qcompile.tune.gpu_timing import measure
from qcompile.tune.log import TuningLog
from qcompile.tune.measurer import feed
from qcompile.tune.record import Record, from_dict, to_dict
from qcompile.tune.run import tune
from qcompile.tune.search import KnobSearch
from qcompile.tune.session import Budget
from qcompile.tune.tasks import TuningTask
from qcompile.tune.timing import Job

pytestmark = pytest.mark.usefixtures("cuda_compiler")

FAKE = Path(__file__).parents[1] / "runtime" / "fake_cuda.cc"
SM_90 = ROWS[0].narrowed("sm_90")
CODES = Affine(1.0, 0)


def conv(batch: int = 1, channels: int = 32, outputs: int = 40, size: int = 6, residual: bool = False) -> Workload:
    spec = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, CODES, Epilogue(CODES, None, CODES if residual else None))
    x, out = (Storage((batch, c, size, size), "uint8") for c in (channels, outputs))
    return Workload.of("conv2d_cuda", spec, (outputs, channels, 3, 3), x, out, out if residual else None, 1)


def depthwise(batch: int = 1, channels: int = 20, size: int = 9) -> Workload:
    spec = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), channels, CODES, Epilogue(CODES))
    x = Storage((batch, channels, size, size), "uint8")
    return Workload.of("depthwise_conv2d_cuda", spec, (channels, 1, 3, 3), x, x, None, 1)


def dense(rows: int = 5) -> Workload:
    spec = Dense(CODES, Epilogue(None, (0.0, float("inf"))))
    x, out = Storage((rows, 70), "uint8"), Storage((rows, 24), "float32")
    return Workload.of("dense_cuda", spec, (24, 70), x, out, None, 1)


def emulated(workload: Workload, knobs: list, library: Path, wrong: str = "") -> None:
    """A driver whose kernels are the candidates of a workload. wrong: is put before the text of the second one."""
    template, numbers, texts = TEMPLATES[workload.operator], constants_of(workload), []
    for i, each in enumerate(knobs):
        arguments = (workload.spec, numbers, workload.x, workload.out, workload.residual, SM_90, each)
        text = template.build(*arguments)[0].text.replace(NAME, f"candidate_{i}")
        texts.append(text.replace("sum, bias, factor", wrong) if wrong and i == 1 else text)
    emulated_library(templates() + "\n".join(texts) + FAKE.read_text(), library, optimize=0)


def some(workload: Workload, count: int) -> list:
    template = TEMPLATES[workload.operator]
    space = sorted(template.space(workload, SM_90), key=lambda knobs: template.cycles(workload, SM_90, knobs))
    return space[:: max(1, len(space) // count)][:count]


@pytest.mark.parametrize("workload", [conv(2, residual=True), depthwise(), dense()], ids=lambda w: w.operator)
def test_a_gpu_measures(workload, tmp_path):
    knobs = some(workload, 4)
    emulated(workload, knobs, tmp_path / "fake.so", "sum, bias + 64, factor")
    made = build_kernels(workload, knobs, range(4), SM_90, tmp_path / "candidates")
    (built,) = made.libraries
    job = Job(workload, built, feed(workload), 1 << 14, 60.0)
    measured = measure(partial(opened, str(tmp_path / "fake.so")), HERE, job, range(4))
    good, wrong, *others = (measured[i] for i in range(4))
    assert all(result.costs and not result.error for result in (good, *others))
    if workload.operator != "depthwise_conv2d_cuda":  # whose sums are finished elsewhere
        assert wrong.error.startswith("wrong result: ") and not wrong.costs


@pytest.mark.slow
def test_a_kernel_that_takes_the_gpu_with_it_costs_one_trial(tmp_path):
    workload, knobs = conv(), some(conv(), 3)
    emulated(workload, knobs, tmp_path / "fake.so", "*(const int*)nullptr, bias, factor")
    with GpuMeasurer(SM_90, workers=1, library=str(tmp_path / "fake.so")) as gpu:
        first, second, third = gpu.measure(workload, knobs, 0)
    assert first.costs and third.costs
    assert not second.costs and second.error.startswith("measuring failed: the GPU was lost: the CUDA driver failed: c")


def test_without_a_gpu_nothing_is_built():
    with pytest.raises(QCompileError, match="this machine has no NVIDIA driver"):
        GpuMeasurer(SM_90, library="libcuda-of-nowhere.so")


def test_the_architecture_is_the_gpus():
    def of(*capability: int) -> str:
        return row_for(ROWS[0], Gpu("some card", capability, 100)).architecture

    assert [of(7, 5), of(8, 0), of(8, 7), of(8, 9), of(9, 0)] == ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90"]
    with pytest.raises(QCompileError, match=r"cuda: the GPU \(some card\) is sm_120, and runs no code for sm_75, "):
        of(12, 0)
    with pytest.raises(QCompileError, match=r"sm_90: the GPU \(some card\) is sm_86, and runs no code for sm_90; tune"):
        row_for(SM_90, Gpu("some card", (8, 6), 82))


def test_a_session_is_logged(monkeypatch, tmp_path):
    """Every trial that the log has comes back from JSON lines as it was."""
    workload = depthwise()
    knobs = KnobSearch(workload, SM_90).propose(6)
    emulated(workload, knobs, tmp_path / "fake.so")
    monkeypatch.setattr(driver, "LIBRARY", str(tmp_path / "fake.so"))
    outcome = tune([TuningTask(workload, ("a", "b"))], SM_90, tuning_records=tmp_path / "a.db", budget=Budget(trials=6))
    assert outcome.trials == 6 and outcome.stopped == "trials" and not outcome.tasks[0].errors
    with TuningLog.open(tmp_path / "a.db") as log:
        records = [item for item in log.items() if isinstance(item, Record)]
    assert {(r.instructions, r.operator, r.device) for r in records} == {("sm_90", workload.operator, "emulated")}
    assert {"nvrtc", "nvcc"} & {name for name, _ in records[0].tools}
    assert [from_dict(Record, to_dict(record)) for record in records] == records
