"""Which tensors have codes, and with which parameters: own, shared, or fixed by the operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tvm import relax

from qcompile.assign.structure import Structure
from qcompile.calibrate.scales import affine
from qcompile.errors import QCompileError
from qcompile.passes.chain import Chain
from qcompile.plan import LayerPlan, TensorPlan

Range = tuple[float, float]
SHARE_UP_TO = 2.0  # times its own scale that a tensor may take to share a concatenation's: one bit


def activation_plans(
    structure: Structure,
    formats: Mapping[str, LayerPlan],
    range_of: Callable[[str], Range],
    integer_inputs: Sequence[str] = (),
    integer_outputs: Sequence[str] = (),
) -> dict[str, TensorPlan]:
    """Tensor name -> plan, for every tensor that some int8 layer reads as codes, or the user wants as codes."""
    int8 = [chain for chain in structure.chains if formats[chain.name].codes]
    paths = coded_paths(structure, int8, integer_inputs, integer_outputs)
    roots = list(dict.fromkeys(path[-1] for path in paths))
    groups = _concat_groups(structure, int8, set(roots), range_of)
    plans: dict[str, TensorPlan] = {}
    for root in roots:
        maker = structure.chain_of.get(root)
        if maker is not None and maker.kind == "softmax" and maker in int8:
            plans[root.name] = TensorPlan((float.fromhex("0x1.010102p-8"),), (0,), "uint8", kind="fixed")
        elif root in groups:
            low, high, source = groups[root]
            q = affine(low, high)
            own = source.same_as(root)
            plans[root.name] = TensorPlan(
                (q.scale,), (q.zero_point,), q.dtype, None, "own" if own else "shared", "" if own else source.name
            )
        else:
            q = affine(*_checked(root.name, range_of))
            plans[root.name] = TensorPlan((q.scale,), (q.zero_point,), q.dtype)
    for path in paths:
        plan = plans[path[-1].name]
        for var in path[:-1]:
            plans[var.name] = TensorPlan(plan.scale, plan.zero_point, plan.dtype, None, "shared", path[-1].name)
    return plans


def coded_paths(
    structure: Structure, int8: list[Chain], integer_inputs: Sequence[str] = (), integer_outputs: Sequence[str] = ()
) -> list[list[relax.Var]]:
    """For each tensor that is wanted as codes, the tensors from it to its root."""
    wanted = [out for out in structure.outputs if isinstance(out, relax.Var) and out.name in integer_outputs]
    wanted += [p for p in structure.main.params if p.name in integer_inputs]
    paths = {var: structure.path(var) for var in wanted}
    roots = {path[-1] for path in paths.values()}
    for chain in reversed(int8):
        operands = structure.data(chain)
        if chain.residual is not None and chain.out in roots:
            operands.append(chain.residual)
        for var in operands:
            paths[var] = structure.path(var)
            roots.add(paths[var][-1])
    return list(paths.values())


def _checked(name: str, range_of: Callable[[str], Range]) -> Range:
    low, high = range_of(name)
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise QCompileError("its values are not finite", node=name, remedy="check the calibration data and the weights")
    return low, high


def _concat_groups(
    structure: Structure, int8: list[Chain], roots: set[relax.Var], range_of: Callable[[str], Range]
) -> dict[relax.Var, tuple[float, float, relax.Var]]:
    """Root -> range and name giver of the group that shares one scale with it.

    The inputs of a concatenation share its result's scale, so that it only moves codes. One that others read as well
    does so while that costs it no more than a bit.
    """
    group: dict[relax.Var, list[relax.Var]] = {}
    span: dict[int, Range] = {}

    def members(var: relax.Var) -> list[relax.Var]:
        if var not in group:
            group[var] = [var]
            span[id(group[var])] = _checked(var.name, range_of)
        return group[var]

    for chain in int8:
        if chain.kind != "concat" or chain.out not in roots:
            continue
        for operand in structure.data(chain):
            whole, part = members(chain.out), members(structure.root(operand))
            if whole is part:
                continue
            (low, high), (low_2, high_2) = span[id(whole)], span[id(part)]
            low, high = min(low, low_2), max(high, high_2)
            alone = len(part) == 1 and structure.uses.only_user(part[0]) is not None
            if _fixed(structure, part) or not (alone or _cheap((low, high), [*whole, *part], range_of)):
                continue
            whole.extend(part)
            span[id(whole)] = low, high
            for var in part:
                group[var] = whole
    return {
        var: (*span[id(whole)], whole[0])
        for whole in {id(g): g for g in group.values()}.values()
        for var in whole
        if len(whole) > 1
    }


def _fixed(structure: Structure, part: list[relax.Var]) -> bool:
    chains = [structure.chain_of.get(var) for var in part]
    return any(chain is not None and chain.kind == "softmax" for chain in chains)


def _cheap(span: Range, members: list[relax.Var], range_of: Callable[[str], Range]) -> bool:
    width = span[1] - span[0]
    return all(width <= SHARE_UP_TO * (high - low) for low, high in (range_of(var.name) for var in members))
