"""Forward passes of a model in which the format of each layer is an argument."""
