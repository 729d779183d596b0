"""``Structure``: a float graph as the planner sees it: layers, and tensors that only move between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import relax

from qcompile import graph
from qcompile.passes.base import dtype_of
from qcompile.passes.chain import Chain, Uses, chain_members, find_chains
from qcompile.passes.movement import moved_from


@dataclass(slots=True)
class Structure:
    """chains: all layers. made_by: variable -> the chain whose result it is. readers: root -> chains that read it.

    The root of a tensor is the tensor whose elements it holds, reached backwards through operators that only move data.
    """

    main: graph.Graph
    uses: Uses = field(init=False)
    chains: list[Chain] = field(init=False)
    chain_of: dict[relax.Var, Chain] = field(init=False)

    def __post_init__(self) -> None:
        self.uses = Uses(self.main)
        self.chains = find_chains(self.main)
        self.chain_of = dict(chain_members(self.chains))

    @property
    def definitions(self) -> dict[relax.Var, relax.Expr]:
        return self.uses.definitions

    @property
    def outputs(self) -> tuple[relax.Expr, ...]:
        return self.main.outputs

    def path(self, var: relax.Var) -> list[relax.Var]:
        """``var``, and the tensors that its elements come from, the root last."""
        result = [var]
        while isinstance(source := moved_from(self.definitions.get(result[-1]), self.definitions), relax.Var):
            result.append(source)
        return result

    def root(self, var: relax.Var) -> relax.Var:
        return self.path(var)[-1]

    def maker(self, var: relax.Var) -> Chain | None:
        """The layer whose result holds the elements of ``var``; None for model inputs and islands."""
        root = self.root(var)
        chain = self.chain_of.get(root)
        return chain if chain is not None and chain.out.same_as(root) else None

    def data(self, chain: Chain) -> list[relax.Var]:
        """The tensors that a layer reads as data, without a residual; constants are left out."""
        return [expr for expr in chain.inputs if isinstance(expr, relax.Var)]

    def is_float(self, var: relax.Var) -> bool:
        return isinstance(var.ty, relax.TensorType) and dtype_of(var) == "float32"
