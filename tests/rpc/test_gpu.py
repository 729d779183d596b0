"""A driver behind TVM's own RPC, which emulates the kernels of one workload."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.errors import QCompileError
from qcompile.rpc.gpu import remote_driver
from qcompile.rpc.places import Server
from qcompile.tune.gpu import GpuMeasurer, gpu_at
from tests.rpc.farm import Farm
from tests.tune.test_gpu import SM_90, conv, emulated, some


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    farm = Farm(tmp_path_factory.mktemp("farm"))
    yield Server("127.0.0.1", farm.server())
    farm.close()


@pytest.fixture(scope="module")
def measured(tmp_path_factory, cuda_compiler):
    """(workload, knobs, the library of a driver)."""
    library = tmp_path_factory.mktemp("fake") / "fake.so"
    workload, knobs = conv(2, residual=True), some(conv(2, residual=True), 3)
    emulated(workload, knobs, library, "sum, bias + 64, factor")
    return workload, knobs, str(library)


@pytest.mark.slow
def test_a_gpu_behind_rpc_measures(place, measured):
    workload, knobs, library = measured
    with GpuMeasurer(SM_90, place, workers=1, library=library) as gpu:
        assert gpu.device == "emulated"
        good, wrong, third = gpu.measure(workload, knobs, 1 << 14)
    assert good.costs and third.costs and wrong.error.startswith("wrong result: ")


def test_memory_goes_there_and_back(place, measured):
    with remote_driver(place, measured[2], 60) as driver:
        driver.use_primary_context(driver.device(0))
        data, back = np.arange(1000, dtype=np.int32), np.zeros(1000, np.int32)
        pointer = driver.allocate(data.nbytes)
        driver.to_device(pointer, data.ctypes.data, data.nbytes, driver.stream())
        driver.to_host(back.ctypes.data, pointer, data.nbytes, driver.stream())
        np.testing.assert_array_equal(back, data)
        with pytest.raises(QCompileError, match="driver failed: cuModuleGetFunction said CUDA_ERROR_NOT_FOUND"):
            driver.function(0, "none")


def test_a_machine_without_a_driver(place):
    with pytest.raises(QCompileError, match="the machine has no NVIDIA driver .libcuda-of-nowhere.so.; name one that"):
        gpu_at(place, "libcuda-of-nowhere.so")
