"""Sensitivity: what each group of layers costs in accuracy, in each format."""
