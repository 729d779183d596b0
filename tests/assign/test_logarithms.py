"""Which layers stay in float because a logarithm reads what they compute."""

from __future__ import annotations

from tvm import relax

from tests.passes.float_modules import const, module, weight
from tests.passes.quantized_modules import plan_of

op = relax.op
SHAPE = (1, 4, 6, 6)


def conv(b, x, name, seed=0):
    return b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1, seed=seed)), name)


def formats(write):
    return {name: layer.format for name, layer in plan_of(module(write, x=SHAPE)).layers.items()}


def log_energy(floor):
    """relu(conv) -> conv -> square -> sum -> log -> conv"""

    def write(b, x):
        active = b.emit(op.nn.relu(conv(b, x, "first")), "active")
        spectrum = conv(b, active, "spectrum", 1)
        energy = b.emit(op.sum(b.emit(op.multiply(spectrum, spectrum), "square"), axis=3, keepdims=True), "energy")
        level = b.emit(op.log(b.emit(op.add(energy, const(floor)), "above")), "level")
        return [conv(b, level, "last", 2)]

    return write


def test_what_a_logarithm_of_small_energies_is_computed_of_is_float_up_to_the_last_activation():
    plan = plan_of(module(log_energy(1e-6), x=SHAPE))
    found = {name: layer.format for name, layer in plan.layers.items()}
    assert {name: found[name] for name in ("active", "spectrum", "square", "last")} == {
        "active": "int8",
        "spectrum": "fp32",
        "square": "fp32",
        "last": "int8",
    }
    assert plan.layers["spectrum"].why.startswith("level is a logarithm of values down to ")


def test_energies_far_from_0_are_codes():
    assert formats(log_energy(50.0))["spectrum"] == "int8"


def test_what_an_activation_makes_is_codes():
    def write(b, x):
        smooth = b.emit(op.log(b.emit(op.add(b.emit(op.exp(conv(b, x, "c")), "e"), const(1.0)), "above")), "softplus")
        return [conv(b, smooth, "d", 1)]

    assert set(formats(write).values()) == {"int8"}
