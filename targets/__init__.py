"""Targets as data, storage layouts, and the kernels that run on them."""
