"""Which layers compute in integers: those with weights, and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvm import relax

from qcompile.assign.structure import Structure
from qcompile.passes import channels, embedding
from qcompile.passes.base import array, op_name, shape_of
from qcompile.passes.chain import Chain
from qcompile.passes.composite_pooling import resize_refusal
from qcompile.passes.movement import moved_from
from qcompile.plan import LayerPlan
from qcompile.reference.elementwise import SOFTMAX_MAX_ELEMENTS

REDUCTIONS = ("mean", "avg_pool")  # cheaper from codes even if the result is float32


def choose_formats(
    structure: Structure,
    refused: Mapping[str, str],
    integer_inputs: Sequence[str] = (),
    integer_outputs: Sequence[str] = (),
) -> dict[str, LayerPlan]:
    """Layer name -> format, for every chain, and for every float operator that is in none.

    refused: layers that are to stay in float32, and why.

    A layer with weights is int8 unless refused. Any other is int8 where its operands can be codes (an int8 layer makes
    them, or one with weights reads them), and either its result is wanted as codes or its operands are stored as codes
    anyway; a mean always, because codes are less to read.
    """
    reasons: dict[str, str] = {}
    for chain in structure.chains:
        reason = refused.get(chain.name) or refusal(chain)
        if reason is not None:
            reasons[chain.name] = reason
    int8 = [chain for chain in structure.chains if chain.name not in reasons]
    while True:
        dropped = _without_reason_to_be(structure, int8, integer_inputs, integer_outputs)
        if not dropped:
            break
        reasons.update(dropped)
        int8 = [chain for chain in int8 if chain.name not in dropped]
    plans = {
        chain.name: LayerPlan("fp32", reasons[chain.name]) if chain.name in reasons else LayerPlan("int8")
        for chain in structure.chains
    }
    for var, value in structure.main.bindings:
        in_chain = var in structure.chain_of or not structure.is_float(var)
        if not in_chain and isinstance(value, relax.Call) and moved_from(value, structure.definitions) is None:
            plans[var.name] = LayerPlan("fp32", f"no integer form of {op_name(value) or 'this operator'}")
    return plans


def refusal(chain: Chain) -> str | None:
    """Why a layer has no integer form, None if it has one."""
    if chain.kind == "gather":
        return embedding.why_not(chain.weight) or embedding.not_finite(chain.weight, chain.bias)
    for operand in (*chain.inputs, *([chain.weight] if chain.weight is not None else [])):
        if str(operand.ty.dtype) != "float32":
            return f"computes in {operand.ty.dtype}"
    if chain.kind in ("conv", "conv_transpose"):
        return channels.why_not(chain.call)
    if chain.kind == "binary" and all(array(operand) is not None for operand in chain.inputs):
        return "both operands are constants"
    if chain.kind == "concat" and any(array(operand) is not None for operand in chain.inputs):
        return "concatenates a constant"
    if chain.kind == "avg_pool" and not str(chain.call.attrs.layout).startswith("NC"):
        return f"layout {chain.call.attrs.layout}"
    if chain.kind == "resize":
        return resize_refusal(chain.call)
    if chain.kind == "softmax":
        extent = shape_of(chain.out)[int(chain.call.attrs.axis)]
        if extent > SOFTMAX_MAX_ELEMENTS:
            return f"{extent} elements; at most {SOFTMAX_MAX_ELEMENTS} fit its int32 sum"
    return None


def _without_reason_to_be(
    structure: Structure, int8: list[Chain], integer_inputs: Sequence[str], integer_outputs: Sequence[str]
) -> dict[str, str]:
    """Layers of ``int8`` without weights that gain nothing from being there, and why."""
    wanted = {structure.root(v) for chain in int8 for v in structure.data(chain)}
    read = {structure.root(v) for chain in int8 if has_weights(chain) for v in structure.data(chain)}
    for out in structure.outputs:
        if isinstance(out, relax.Var) and out.name in integer_outputs:
            wanted.add(structure.root(out))
    for chain in reversed(int8):  # a residual is wanted as codes if the sum is
        if chain.residual is not None and chain.out in wanted:
            wanted.add(structure.root(chain.residual))
    names = {chain.name for chain in int8 if chain.kind != "gather"}  # which gives float32

    def made_as_codes(root: relax.Var) -> bool:
        maker = structure.maker(root)
        return root.name in integer_inputs or (maker is not None and maker.name in names)

    firm = [c for c in int8 if has_weights(c) or c.kind in REDUCTIONS or c.out in wanted]
    stored = {root for c in firm for v in structure.data(c) if made_as_codes(root := structure.root(v))}
    dropped = {}
    for chain in int8:
        if has_weights(chain):
            continue
        roots = [structure.root(operand) for operand in structure.data(chain)]
        for root in roots:
            if root not in read and not made_as_codes(root):
                dropped[chain.name] = f"reads {root.name}, which is float32"
        free = chain.kind != "concat" and all(root in stored for root in roots)
        if chain not in firm and not free:
            dropped.setdefault(chain.name, "its result is wanted as float32")
    return dropped


def has_weights(chain: Chain) -> bool:
    """Whether a layer is worth computing in integers for itself; scaling by channel is as cheap in float32."""
    return chain.weight is not None and chain.kind != "scale"
