"""``make bench``: every figure that the README states, measured."""
