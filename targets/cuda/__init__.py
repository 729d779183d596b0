"""NVIDIA GPUs: kernels in CUDA C++ on codes that lie channels last, and what compiles and emulates them."""
