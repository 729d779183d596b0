"""Which layers take one format together, found on a graph of the layers, and why, in words."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import networkx as nx
from tvm import relax

from qcompile.assign.structure import Structure
from qcompile.passes.base import array, shape_of
from qcompile.passes.chain import Chain
from qcompile.plan import QuantPlan

_OWN_WEIGHT = ("conv", "conv_transpose", "dense", "gather")  # layers that may differ in format from their producers
_SHOWN = 4  # reasons that one line has room for


@dataclass(frozen=True, slots=True)
class Tie:
    """Layers that take one format together.

    name: of the first of them that has weights. layers: in order of execution. why: "" for one layer alone.
    """

    name: str
    layers: tuple[str, ...]
    why: str = ""


def find_ties(structure: Structure, plans: Mapping[str, QuantPlan]) -> list[Tie]:
    """Every layer that some plan of ``plans`` has in another format than fp32, in one tie each; in order of execution.

    plans: by format name, each with all in that format that can be.

    Tied are: the operands of a residual add in integers; a layer without weights (a concatenation, a pooling, an
    activation) and those whose results it reads, because it computes in whatever they give it; layers with one weight;
    products of one tensor with several weights (queries, keys and values), which read one cast of it.
    """
    free = {name for plan in plans.values() for name, layer in plan.layers.items() if layer.format != "fp32"}
    chains = [chain for chain in structure.chains if chain.name in free]
    ties = nx.Graph()
    ties.add_nodes_from(chain.name for chain in chains)
    _tie_operands(ties, structure, chains, coded_tensors(plans))
    _tie_weights(ties, chains)
    _tie_projections(ties, structure, chains)
    return [_tie(ties, part, chains) for part in _in_order(nx.connected_components(ties), chains)]


def coded_tensors(plans: Mapping[str, QuantPlan]) -> set[str]:
    """Names of tensors (and constants) that are codes in some plan."""
    return {name for plan in plans.values() for name in plan.tensors}


def adds_codes(chain: Chain, coded: Collection[str]) -> bool:
    """Whether a layer adds codes of a residual: where its result is stored as codes; float32 adds float32."""
    return chain.residual is not None and chain.name in coded and chain.residual.name in coded


def _tie_operands(ties: nx.Graph, structure: Structure, chains: list[Chain], coded: Collection[str]) -> None:
    for chain in chains:
        operands = [] if chain.kind in _OWN_WEIGHT else structure.data(chain)
        for var in operands:
            _tie_to_maker(ties, structure, chain, var, _VERBS.get(chain.kind, "follows"))
        if adds_codes(chain, coded):
            _tie_to_maker(ties, structure, chain, chain.residual, "adds")


_VERBS = {"binary": "combines its operand", "concat": "concatenates"}


def _tie_to_maker(ties: nx.Graph, structure: Structure, chain: Chain, var: relax.Var, verb: str) -> None:
    maker = structure.maker(var)
    if maker is not None and maker.kind != "gather" and maker.name in ties and maker.name != chain.name:
        ties.add_edge(maker.name, chain.name, why=f"{chain.name} {verb} {maker.name}")


def _tie_weights(ties: nx.Graph, chains: list[Chain]) -> None:
    owners: dict[tuple[tuple[int, ...], bytes], str] = {}
    for chain in chains:
        if chain.kind not in _OWN_WEIGHT or chain.weight is None:
            continue
        values = array(chain.weight)
        key = (shape_of(chain.weight), hashlib.blake2b(values.tobytes(), digest_size=16).digest())
        owner = owners.setdefault(key, chain.name)
        if owner != chain.name and values.size > 1:
            ties.add_edge(owner, chain.name, why=f"{chain.name} has the weight of {owner}")


def _tie_projections(ties: nx.Graph, structure: Structure, chains: list[Chain]) -> None:
    readers: dict[relax.Var, list[str]] = defaultdict(list)
    for chain in chains:
        if chain.kind == "dense":
            for var in structure.data(chain):
                readers[structure.root(var)].append(chain.name)
    for root, names in readers.items():
        for other in names[1:]:
            ties.add_edge(names[0], other, why=f"{', '.join(names)} are products of one tensor, {root.name}")


def _in_order(parts: Iterable[set[str]], chains: list[Chain]) -> list[set[str]]:
    order = {chain.name: i for i, chain in enumerate(chains)}
    return sorted(parts, key=lambda part: min(order[name] for name in part))


def _tie(ties: nx.Graph, part: set[str], chains: list[Chain]) -> Tie:
    members = [chain for chain in chains if chain.name in part]
    leader = next((chain for chain in members if chain.kind in _OWN_WEIGHT), members[0])
    edges = ties.edges([chain.name for chain in members], data="why")
    reasons = list(dict.fromkeys(why for *_, why in edges))
    shown = "; ".join(reasons[:_SHOWN]) + (f"; ... {len(reasons)} in all" if len(reasons) > _SHOWN else "")
    return Tie(leader.name, tuple(chain.name for chain in members), shown)
