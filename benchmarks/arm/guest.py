"""Runs models in ONNX Runtime, in an arm64 Python: guest.py INPUTS.npz CALLS MODEL.onnx...

After two calls that are not counted, each call of each model is a section of QEMU's plugin ``icount.c``, which begins
one wherever the virtual counter is read.
"""

import ctypes
import mmap
import sys

import numpy
import onnxruntime

page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("40e03bd5c0035fd6"))  # mrs x0, cntvct_el0; ret
stamp = ctypes.CFUNCTYPE(ctypes.c_int64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
feed = dict(numpy.load(sys.argv[1]))
sessions = [onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for file in sys.argv[3:]]
for session in sessions:
    for _ in range(2):
        session.run(None, feed)
for session in sessions:
    for _ in range(int(sys.argv[2])):
        stamp()
        session.run(None, feed)
stamp()
