"""What passes between groups of layers: tensors that may have to be cast, codes that layers read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from tvm import relax

from qcompile import graph
from qcompile.assign.formats import REDUCTIONS, has_weights
from qcompile.assign.structure import Structure
from qcompile.assign.table import OUTSIDE, Cast
from qcompile.assign.ties import Tie, adds_codes, coded_tensors
from qcompile.passes.base import shape_of
from qcompile.passes.movement import moved_from
from qcompile.plan import QuantPlan


def find_casts(structure: Structure, ties: Sequence[Tie], plans: Mapping[str, QuantPlan]) -> list[Cast]:
    """The tensors that one group makes and another reads, and that some plan has as codes, in order of execution.

    Operators that only move a tensor (reshape, pooling by maximum) pass on what they get; whoever reads their result
    reads the tensor that it is from. Model inputs and outputs, and operators in no group, are ``OUTSIDE``.
    """
    group_of = {layer: tie.name for tie in ties for layer in tie.layers}
    known = coded_tensors(plans)
    readers: dict[relax.Var, dict[str, None]] = {}

    def read_by(var: relax.Var, group: str) -> None:
        if structure.is_float(var):
            readers.setdefault(structure.root(var), {})[group] = None

    for var, value in structure.main.bindings:
        chain = structure.chain_of.get(var)
        if chain is not None:
            if chain.anchor.same_as(var):
                residual = [chain.residual] if adds_codes(chain, known) else []
                for operand in (*structure.data(chain), *residual):
                    read_by(operand, group_of.get(chain.name, OUTSIDE))
        elif moved_from(value, structure.definitions) is None:
            for operand in graph.reads(value):
                read_by(operand, OUTSIDE)
    for out in structure.outputs:
        if isinstance(out, relax.Var):
            read_by(out, OUTSIDE)
    casts = []
    for root, groups in readers.items():
        producer = _producer(structure, root, group_of)
        consumers = tuple(group for group in groups if group != producer)
        if consumers and root.name in known:
            casts.append(Cast(root.name, prod(shape_of(root)), producer, consumers))
    return casts


def _producer(structure: Structure, root: relax.Var, group_of: Mapping[str, str]) -> str:
    maker = structure.maker(root)
    if maker is None or maker.kind == "gather":  # which gives float32 whatever its table is in
        return OUTSIDE
    return group_of.get(maker.name, OUTSIDE)


def find_reads(structure: Structure, plans: Mapping[str, QuantPlan]) -> dict[str, tuple[str, ...]]:
    """Layer -> names in the plans of the tensors whose codes it reads, those that they are moved from, its constants.

    A residual is left out: see ``find_residuals``. ``OUTSIDE`` has the model inputs and outputs that are codes.
    """
    known = coded_tensors(plans)
    reads = {}
    for chain in structure.chains:
        names = _paths(structure, structure.data(chain)) + [f"{chain.name}.weight", f"{chain.name}.bias"]
        reads[chain.name] = tuple(name for name in dict.fromkeys(names) if name in known)
    ends = {name for plan in plans.values() for name in (*plan.integer_inputs, *plan.integer_outputs)}
    names = _paths(
        structure, [v for v in (*structure.main.params, *structure.outputs) if getattr(v, "name", None) in ends]
    )
    reads[OUTSIDE] = tuple(name for name in dict.fromkeys(names) if name in known)
    return {layer: names for layer, names in reads.items() if names}


def find_residuals(structure: Structure, plans: Mapping[str, QuantPlan]) -> dict[str, tuple[str, ...]]:
    """Layer -> names of the residual whose codes it adds if its result is codes, and of what that is moved from."""
    known = coded_tensors(plans)
    residuals = {c.name: _paths(structure, [c.residual]) for c in structure.chains if adds_codes(c, known)}
    return {layer: tuple(name for name in names if name in known) for layer, names in residuals.items()}


def find_sources(structure: Structure, ties: Sequence[Tie]) -> dict[str, tuple[str, ...]]:
    """Layer in a tie -> the layers in ties and the model inputs that it reads, through operators that are in none.

    ``OUTSIDE`` has those that the model's outputs come from.
    """
    grouped = {layer for tie in ties for layer in tie.layers}
    inputs = set(structure.main.params)

    def behind(tensors: Sequence[relax.Expr]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        seen: set[relax.Var] = set()
        pending = [tensor for tensor in reversed(tensors) if isinstance(tensor, relax.Var)]
        while pending:
            var = pending.pop()
            if var in seen:
                continue
            seen.add(var)
            chain = structure.chain_of.get(var)
            if chain is not None and chain.name in grouped:
                found[chain.name] = None
            elif var in inputs:
                found[var.name] = None
            elif var in structure.definitions:
                pending += reversed(graph.reads(structure.definitions[var]))
        return tuple(found)

    sources = {}
    for chain in structure.chains:
        if chain.name in grouped:
            read = [var for member in chain.members for var in graph.reads(structure.definitions[member])]
            sources[chain.name] = tuple(name for name in behind(read) if name != chain.name)
    return {**sources, OUTSIDE: behind(structure.outputs)}


def find_passive(structure: Structure) -> tuple[str, ...]:
    """Layers that integers make no faster by themselves: worth it only where their results are wanted as codes."""
    return tuple(chain.name for chain in structure.chains if not has_weights(chain) and chain.kind not in REDUCTIONS)


def _paths(structure: Structure, tensors: Sequence[relax.Var]) -> list[str]:
    return [var.name for tensor in tensors for var in structure.path(tensor)]
