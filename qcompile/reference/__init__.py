"""The oracle: numpy functions that say, to the bit, what the integer form means.

``interpreter.run`` runs a whole module; ``arithmetic`` holds the definitions that passes and kernels share.
"""
