"""Lowers the simulation form: every kernel of every variant; a choice has its options in one storage, and no kernel."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import tvm
from tvm import relax
from tvm.ir import IRModule
from tvm.script.ir_builder import tirx as T

from qcompile import graph
from qcompile.passes.base import module_pass
from qcompile.passes.legalize_islands import LegalizeIslands
from qcompile.passes.lower_layers import Lowering
from qcompile.passes.schedule_islands import ScheduleIslands
from qcompile.passes.store_activations import StoreActivations
from qcompile.simulate.form import CHOICE
from qcompile.simulate.short import short_schedule
from qcompile.simulate.slices import Variants, is_spare
from qcompile.targets.kernels.builder import kernel
from qcompile.targets.kernels.template import Schedules, default_schedules
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target

CHOOSE = "choose"  # what the names of kernels begin with that stand for choices; they are never run
ATTR_STORAGES = "qcompile.storages"  # JSON on ``main``: layer -> storage of its choice


def lowering_passes(
    target: Target, schedules: Schedules = default_schedules, variants: Variants | None = None
) -> list[tvm.ir.transform.Pass]:
    """Simulation form to kernels: those that a build has, and a call of ``choose_<n>(options...)`` for each choice.

    variants: of the form. What is only there for borders between formats has kernels of little code.
    """
    return [
        StoreActivations(target),
        module_pass(
            "LowerVariants", lambda module: _Lowering(module, target, schedules, variants or {}).run(), __doc__
        ),
        LegalizeIslands(target),
        ScheduleIslands(target),
    ]


class _Lowering(Lowering):
    """Options are written where the choice is read, so that no layout changes between layers."""

    def __init__(self, module: IRModule, target: Target, schedules: Schedules, variants: Variants):
        super().__init__(module, target, schedules)
        self._spare: set[relax.Var] = set()
        for var, value in self.main.bindings:
            if self._is_choice(value):
                common = _common([self.home[each] for each in (var, *value.args)])
                self.home.update(dict.fromkeys((var, *value.args), common))
                options = zip(value.args, variants.get(var.name, ()), strict=False)
                self._spare.update(option for option, variant in options if is_spare(variant, variants[var.name]))

    def run(self) -> IRModule:
        module = super().run()
        storages = {var.name: asdict(self.home[var]) for var, value in self.main.bindings if self._is_choice(value)}
        main = module[graph.MAIN].with_attr(ATTR_STORAGES, json.dumps(storages))
        module.update_func(module.get_global_var(graph.MAIN), main)
        return module

    def _is_choice(self, value: relax.Expr) -> bool:
        if not isinstance(value, relax.Call) or not isinstance(value.op, relax.GlobalVar):
            return False
        function = self.module[value.op]
        return isinstance(function, relax.Function) and bool(function.attrs) and CHOICE in function.attrs

    def _lower(self, var: relax.Var, value: relax.Expr) -> None:
        if not self._is_choice(value):
            usual = self.schedules
            if var in self._spare:
                self.schedules = lambda workload: short_schedule(workload, self.target)
            super()._lower(var, value)
            self.schedules = usual
            return
        storage = self.home[var]
        options = [self.place(option, storage) for option in value.args]
        buffers = [(f"x{i}", storage.dtype, storage.numel) for i in range(len(options))]
        choose = kernel(
            CHOOSE,
            [*buffers, ("y", storage.dtype, storage.numel)],
            lambda *b: T.buffer_store(b[-1], b[0][0], [0]),
        )
        self.emit(var, choose, options, storage, CHOOSE)


def storages_of(lowered: IRModule) -> dict[str, Storage]:
    """Layer -> how its result lies in memory, whichever variant makes it."""
    rows = json.loads(str(lowered[graph.MAIN].attrs[ATTR_STORAGES]))
    return {
        name: Storage(**{**row, "shape": tuple(row["shape"]), "border": tuple(row["border"])})
        for name, row in rows.items()
    }


def _common(storages: list[Storage]) -> Storage:
    """The first blocked storage if there is one, with the largest border that any of them has."""
    blocked = [storage for storage in storages if storage.blocked]
    if not blocked:
        return storages[0]
    border = [max(sides) for sides in zip(*(storage.border for storage in blocked), strict=True)]
    top, left, bottom, right = border
    return replace(blocked[0], border=(top, left, bottom, right))
