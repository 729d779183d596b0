"""A pass of your own in the middle of the pipeline: what would weights of fewer bits cost in accuracy?

    python examples/own_pass.py [bits ...]

Once the plan is visible as quantize and dequantize operators (QDQ form), the weights of an int8 layer are a constant of
codes -127..127. The pass moves each code to the nearest of the few that ``bits`` bits would leave. Everything behind it
is the compiler as it is, so the figures are those of the real integer kernels.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, IRModule

import qcompile as qc
from qcompile import graph
from qcompile.passes.integer_form import integer_form

DIGITS = Path(__file__).parent / "digits"


def narrow_weights(bits: int) -> tvm.ir.transform.Pass:
    """Weights on a grid of ``2**bits - 1`` codes::

    w = dequantize(int8 codes, scale)    ->    w = dequantize(step * round(codes / step), scale)
    """
    step = 127 / (2 ** (bits - 1) - 1)

    @tvm.ir.transform.module_pass(opt_level=0, name=f"NarrowWeights{bits}")
    def narrow(module: IRModule, _: tvm.ir.transform.PassContext) -> IRModule:
        main = graph.read(module)
        builder = graph.MainBuilder(main.params, module)
        new: dict[relax.Var, relax.Expr] = {}
        for var, value in main.bindings:
            value = graph.substitute(value, new)
            if _is_weight(value):
                codes = value.args[0].value.numpy()
                narrowed = np.round(np.round(codes / step) * step).astype(np.int8)
                value = relax.Call(value.op, [relax.const(narrowed), *value.args[1:]], value.attrs)
            new[var] = builder.emit(value, var.name)
        return builder.module(graph.substitute(output, new) for output in main.outputs)

    return narrow


def _is_weight(value: relax.Expr) -> bool:
    """Whether it is the dequantize of a constant of int8 (a bias is one of int32)."""
    return (
        isinstance(value, relax.Call)
        and value.op == tvm.ir.Op.get("relax.dequantize")
        and isinstance(value.args[0], GenericConst)
        and str(value.args[0].ty.dtype) == "int8"
    )


def accuracy(path: Path) -> float:
    runner, test = qc.load(path), np.load(DIGITS / "test.npz")
    found = [runner.run({"image": image[None]})["scores"].argmax() for image in test["image"]]
    return float(np.mean(found == test["labels"]))


def main() -> None:
    model = qc.import_onnx(DIGITS / "model.onnx")
    plan = qc.plan_uniform(model, qc.calibrate(model, DIGITS / "calib.npz"), "int8")
    with tempfile.TemporaryDirectory() as folder:
        for bits in map(int, sys.argv[1:] or ["8", "4", "3", "2"]):
            insert_qdq, *folding = integer_form(plan)
            passes = [insert_qdq, narrow_weights(bits), *folding]
            artifact = qc.build(model, plan, passes=passes, out=Path(folder) / f"{bits}bit")
            print(f"{bits}-bit weights: accuracy {accuracy(artifact.path):.1%}")


if __name__ == "__main__":
    main()
