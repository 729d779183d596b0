"""Int8 models on ARM without a board: executed instructions, and the cycles of inner loops."""
