"""Kernels: a spec of ``qcompile.ops``, the storages of its tensors and a target in, a TIR function on flat buffers out.

Every kernel equals the oracle (``qcompile.reference``) bit for bit when its data are codes.
"""
