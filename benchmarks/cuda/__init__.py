"""Artifacts for GPUs, made on any machine (``cases``), and run on one with a GPU and numpy (``check``)."""
