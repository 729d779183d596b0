"""Float islands, the operators that no kernel template takes, become PrimFuncs: fused by TVM, products by our kernel.

::

    q = matmul(a, b)                          q = call_tir(matmul_f32, (a, b))
    s = divide(q, 8.0)                        t = call_tir(fused_divide_add_softmax, (q, 8.0, mask))
    m = add(s, mask)                    ->    u = reshape(t, ...)        (a view, not a kernel)
    t = softmax(m)
    u = expand_dims(t, ...)

Kernels that are already in the module are opaque to fusion. A variable keeps the name of the value that it holds, so a
fused kernel's result is named after its last operator.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.passes.base import module_pass, op_name
from qcompile.passes.fused_names import names_after_fusion
from qcompile.passes.island_operators import legalizations
from qcompile.targets.target import Target


def LegalizeIslands(target: Target) -> tvm.ir.transform.Pass:  # noqa: N802 (named like TVM's own passes)
    """``main`` in kernels: afterwards it holds call_tir, reshape, tuples and constants only, all of static shape.

    QCompileError for an operator whose result has no static shape, or that TVM calls through its virtual machine.
    """
    transform = relax.transform
    legalize = tvm.ir.transform.Sequential(
        [
            transform.LegalizeOps(legalizations(target), skip_ops=["relax.reshape"]),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.DeadCodeElimination([graph.MAIN]),
        ]
    )

    def run(module: IRModule) -> IRModule:
        unfused = legalize(module)
        check_static(unfused)
        grouped = transform.FuseOps()(unfused)
        names = names_after_fusion(unfused, grouped)
        return renamed(transform.FuseTIR()(grouped), names)

    return module_pass("LegalizeIslands", run, LegalizeIslands.__doc__)


def check_static(module: IRModule) -> None:
    """QCompileError, with the variable's name, unless ``main`` is static kernels and views."""
    for var, value in graph.read(module).bindings:
        if isinstance(value, relax.Call) and op_name(value) not in ("call_tir", "reshape", "memory.view"):
            raise QCompileError(
                f"operator {op_name(value) or value.op} has no static kernel",
                node=var.name,
                remedy="simplify the model so that its shapes are constants (onnxsim), or cut the operator off",
            )
        if not _is_static(var.ty):
            raise QCompileError(
                f"the shape of its result is not static: {var.ty}", node=var.name, remedy="fix input shapes"
            )


def _is_static(ty: tvm.ir.Type) -> bool:
    if isinstance(ty, tvm.ir.TupleType):
        return all(_is_static(field) for field in ty.fields)
    shape = getattr(ty, "shape", None)
    return isinstance(shape, relax.ShapeExpr) and all(isinstance(extent, tvm.tirx.IntImm) for extent in shape)


def renamed(module: IRModule, names: list[str]) -> IRModule:
    """``module`` with the variables of ``main`` named in order."""
    old = graph.read(module)
    builder = graph.MainBuilder(old.params, module)
    new: dict[relax.Var, relax.Expr] = {}
    for (var, value), name in zip(old.bindings, names, strict=True):
        new[var] = builder.emit(graph.substitute(value, new), name)
    return builder.module([graph.substitute(output, new) for output in old.outputs])
