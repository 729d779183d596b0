"""The table of layers, on lowered forms of single layers."""

from __future__ import annotations

from tvm import relax

import qcompile as qc
from qcompile.layers import calls_of, describe_layers, kernel_notes
from qcompile.passes.emit_entry import emit_entry
from qcompile.passes.pipeline import lowering_passes, run_passes
from tests.frontend.onnx_models import model as onnx_model
from tests.frontend.onnx_models import node as onnx_node
from tests.frontend.onnx_models import weights
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import integer_of, model_of, plan_of
from tests.targets.running import AVX2

op = relax.op
LSTM = {"w": weights(1, 16, 8), "r": weights(1, 16, 4)}


def described(write, **inputs):
    """Rows by output name, lowered module."""
    before = module(write, **inputs)
    plan = plan_of(before)
    form = integer_of(before, plan)
    lowered = run_passes(form, lowering_passes(AVX2))
    return describe_layers(model_of(before), plan, form, kernel_notes(lowered)), lowered


def macs(write, **inputs) -> list[int]:
    return [row.macs for row in described(write, **inputs)[0] if row.macs]


def test_macs():
    """What the textbook counts: one for each weight that meets each output."""
    assert macs(lambda b, x: [b.emit(op.nn.conv2d(x, weight(6, 4, 3, 3)), "y")], x=(2, 4, 5, 7)) == [
        2 * 6 * 3 * 5 * 4 * 9
    ]
    assert macs(lambda b, x: [b.emit(op.nn.conv2d(x, weight(6, 2, 1, 1), groups=2), "y")], x=(1, 4, 5, 5)) == [
        6 * 25 * 2
    ]
    assert macs(lambda b, x: [b.emit(op.nn.conv2d_transpose(x, weight(4, 6, 2, 2)), "y")], x=(1, 4, 3, 3)) == [
        9 * 4 * 6 * 4
    ]
    assert macs(lambda b, x: [b.emit(op.matmul(x, weight(8, 3)), "y")], x=(2, 5, 8)) == [2 * 5 * 3 * 8]
    assert macs(lambda b, x: [b.emit(op.nn.max_pool2d(x, (2, 2)), "y")], x=(1, 4, 6, 6)) == []


def network(b, x):
    c = b.emit(op.nn.conv2d(x, weight(8, 4, 3, 3)), "c")
    island = b.emit(op.cumsum(c, 1), "island")
    return [b.emit(op.reshape(island, (8, 9)), "y")]


def test_formats_kernels_and_reasons():
    rows, lowered = described(network, x=(1, 4, 5, 5))
    by_name = {row.name: row for row in rows}
    conv, island = by_name["node of c"], by_name["node of island"]
    assert (conv.op, conv.format, conv.reason) == ("conv2d", "int8", "") and conv.kernel.startswith("conv2d vpmaddwd")
    assert (island.op, island.format, island.kernel) == ("cumsum", "fp32", "") and "cumsum" in island.reason
    assert conv.inputs[0] == (1, 4, 5, 5) and conv.output == (1, 8, 3, 3)
    assert len(kernel_notes(lowered)) >= 2


def test_every_call_has_a_layer():
    _, lowered = described(network, x=(1, 4, 5, 5))
    entry = emit_entry(lowered)
    calls = calls_of(entry, lowered)
    assert [call.kernel for call in calls] == [step.kernel for step in entry.steps]
    assert "node of c" in [call.layer for call in calls] and all(call.layer for call in calls)


def test_a_recurrent_layer_is_a_row_in_float_with_its_products():
    """With the inputs, a matrix product in integers; with the state, the float kernel's."""
    proto = onnx_model([onnx_node("LSTM", "x w r", hidden_size=4)], {"x": (3, 1, 8)}, constants=LSTM)
    imported = qc.import_onnx(proto)
    plan = plan_of(imported.module)
    form = integer_of(imported.module, plan)
    rows = {row.op: row for row in describe_layers(imported, plan, form, [])}
    assert (rows["dense"].format, rows["dense"].macs) == ("int8", 3 * 8 * 16)
    assert (rows["lstm"].format, rows["lstm"].macs, rows["lstm"].output) == ("fp32", 3 * 4 * 16, (3, 1, 1, 4))
    assert rows["lstm"].reason == "no integer form of lstm"
