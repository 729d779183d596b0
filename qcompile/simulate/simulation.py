"""``Simulation``: a model whose layers' formats are arguments of a forward pass."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from qcompile.assign.table import FLOAT
from qcompile.errors import QCompileError, nearest
from qcompile.model import TensorSpec
from qcompile.plan import QuantPlan
from qcompile.runtime import aligned_empty
from qcompile.runtime.library import load_library
from qcompile.simulate.calls import ALIGNMENT, Call, Kernels, Place
from qcompile.simulate.program import Memory, Program, lay_out, needed, resolve, write_program
from qcompile.simulate.slices import own_calls, uniform_choice
from qcompile.simulate.variant import Formats, Names, Space, Variant, find_variant
from qcompile.targets.storage import SLACK, Storage

LIBRARY, WEIGHTS, DESCRIPTION = "simulation.so", "weights.npy", "simulation.pickle"
BASE, PREFIX, SCRATCH = range(3)  # areas: results of fp32, those of a growing configuration; results that none keeps


@dataclass(frozen=True, slots=True)
class Description:
    """All of a simulation but its code and constants. See ``SimulationForm``, ``Space`` and ``Kernels``.

    plans: by format, as JSON. storages: of layers.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: Mapping[str, tuple[Variant, ...]]
    plans: Mapping[str, str]
    reads: Names
    residuals: Names
    passive: tuple[str, ...]
    kernels: Kernels
    storages: Mapping[str, Storage]


class Simulation:
    """One compiled module in which the format of every layer is given at run time.

    A configuration gives the results of a build of ``plan(formats)``: the same bits as long as no float island stands
    in between (islands agree within float rounding).

        outputs = simulation.run(feed, {"conv1": "int8"})

    For many configurations of one sample: ``load`` the sample, ``execute`` programs; a program may build upon what
    another one left. A simulation is not to be used by two threads at once.
    """

    def __init__(self, folder: str | Path):
        """folder: what ``simulate`` wrote. It needs the TVM runtime alone: no compiler."""
        import tvm_ffi

        self.folder = Path(folder)
        with (self.folder / DESCRIPTION).open("rb") as file:
            self.description: Description = pickle.load(file)
        d = self.description
        plans = {name: QuantPlan.from_json(text) for name, text in d.plans.items()}
        self.space = Space(plans, d.reads, d.residuals, d.passive)
        self.kernels = d.kernels
        self._main = load_library(self.folder / LIBRARY)["main"]
        constants = np.load(self.folder / WEIGHTS)
        self._layout: Memory = lay_out(constants.size, self.kernels, _aligned, SCRATCH)
        self._memory = aligned_empty((self._layout.size + SLACK,), np.uint8)
        self._memory[: constants.size] = constants
        self._arguments = tvm_ffi.from_dlpack(self._memory)
        self._tables: WeakKeyDictionary[Program, object] = WeakKeyDictionary()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.description.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.description.outputs

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that have more than one format, in order of execution."""
        return tuple(self.description.variants)

    def formats(self, layer: str) -> tuple[str, ...]:
        """The formats that a layer can have, fp32 first; of some, another one takes the place (see ``combine``)."""
        return tuple(dict.fromkeys(variant.format for variant in self.description.variants[layer]))

    def plan(self, formats: Formats) -> QuantPlan:
        """The plan whose build gives what this configuration gives."""
        self._check(formats)
        return self.space.plan(formats)

    def run(self, feed: Mapping[str, np.ndarray], formats: Formats | None = None) -> dict[str, np.ndarray]:
        """Outputs by name of one forward pass."""
        self.load(feed)
        program = self.program(formats or {})
        self.execute(program)
        return {name: values.copy() for name, values in self.results(program).items()}

    def load(self, feed: Mapping[str, np.ndarray]) -> None:
        """Copies a sample into the simulation's memory."""
        names = [spec.name for spec in self.inputs]
        for name in feed:
            if name not in names:
                raise QCompileError(f"the model has no input '{name}'", remedy=nearest(name, names))
        for spec, view in zip(self.inputs, self.input_views(), strict=True):
            if spec.name not in feed:
                raise QCompileError(
                    f"no value for input '{spec.name}'", remedy=f"give {spec.dtype} of shape {spec.shape}"
                )
            values = np.asarray(feed[spec.name])
            if values.shape != spec.shape or values.dtype != np.dtype(spec.dtype):
                raise QCompileError(
                    f"{values.dtype} of shape {values.shape}, the model takes {spec.dtype} {spec.shape}",
                    node=f"input {spec.name}",
                )
            view[...] = values

    def input_views(self) -> list[np.ndarray]:
        """Where each input lies in memory."""
        starts = zip(self.inputs, self._layout.inputs, strict=True)
        return [self._view(start, Storage(spec.shape, spec.dtype)) for spec, start in starts]

    def program(
        self,
        formats: Formats | QuantPlan,
        *,
        area: int = SCRATCH,
        since: Program | None = None,
        changed: Collection[int] = (),
        layers: Sequence[str] | None = None,
    ) -> Program:
        """The kernel calls of a configuration, or of a plan that combines those of this simulation.

        since: a program that will have been run on the same sample, and that no later one has overwritten; of it,
        what does not differ is taken. area: where results go, ``BASE`` or ``PREFIX`` if a later program is to build
        upon them. changed: kernel calls whose constants were changed. layers: compute these layers' results only.
        """
        targets: Sequence[Place] = self.kernels.outputs
        if layers is not None:
            targets = [Place("choice", self.kernels.choices[name]) for name in layers]
        if isinstance(formats, QuantPlan):
            plan, formats = formats, {name: layer.format for name, layer in formats.layers.items()}
        else:
            plan = self.plan(formats)
        chosen = self._chosen(plan, formats)
        return write_program(self.kernels, self._layout, chosen, targets, area, since, changed)

    def uniform_program(self, format: str) -> Program:
        """Every layer in a format that can have it, with results as codes wherever there is such a variant."""
        chosen = uniform_choice(self.kernels, self.description.variants, format)
        return write_program(self.kernels, self._layout, chosen, self.kernels.outputs, SCRATCH)

    def execute(self, program: Program) -> None:
        """Runs a program on the loaded sample."""
        if len(program.rows):
            self._main(self._arguments, self._table(program))

    def bound(self, rows: np.ndarray) -> Callable[[], object]:
        """Rows of a program as a function that runs them."""
        return partial(self._main, self._arguments, _table(rows))

    def results(self, program: Program) -> dict[str, np.ndarray]:
        """Outputs by name: views, which a later program may overwrite."""
        return {
            spec.name: self._view(start, Storage(spec.shape, spec.dtype))
            for spec, start in zip(self.outputs, program.targets, strict=True)
        }

    def values(self, program: Program, layer: str) -> np.ndarray:
        """A layer's result, of those that a program was asked for."""
        place = resolve(Place("choice", self.kernels.choices[layer]), self.kernels, program.chosen)
        return self._view(program.where[place.index] + place.offset, self.description.storages[layer])

    def weights(self, layer: str) -> list[np.ndarray]:
        """Views of a layer's float weights as its kernels have them: packed, padded by zeros; not its biases."""
        return [self._memory[start : start + size].view(np.float32) for start, size in self._float_weights(layer)]

    def weight_readers(self, layer: str) -> list[int]:
        """The kernel calls that read ``weights(layer)``, for ``changed`` of ``program``."""
        starts = {start for start, _ in self._float_weights(layer)}
        calls = enumerate(self.kernels.calls)
        return [i for i, call in calls if any(start in starts for start, _, _ in call.weights)]

    def _float_weights(self, layer: str) -> list[tuple[int, int]]:
        """Offset and bytes of the largest constant of each kernel that computes the layer in float32."""
        largest = [
            max(constants, key=lambda constant: constant[1])
            for call in self._calls_of(layer, FLOAT)
            if (constants := [c for c in call.weights if c[2] == "float32"])
        ]
        return [(start, size) for start, size, _ in largest]

    def weight_bytes(self, layer: str, format: str) -> int:
        """Bytes of all constants of a layer in a format, as its kernels have them."""
        found = {constant for call in self._calls_of(layer, format) for constant in call.weights}
        return sum(size for _, size, _ in found)

    def _calls_of(self, layer: str, format: str) -> list[Call]:
        own = own_calls(self.kernels, self.description.variants, layer, format)
        return [self.kernels.calls[i] for i in sorted(own)]

    @property
    def constant_bytes(self) -> int:
        """Of the float model."""
        base = needed(self.kernels, (0,) * len(self.kernels.options), self.kernels.outputs)
        found = {constant for i in base for constant in self.kernels.calls[i].weights}
        return sum(size for _, size, _ in found)

    def _view(self, start: int, storage: Storage) -> np.ndarray:
        return storage.view(self._memory[start : start + storage.nbytes].view(storage.dtype))

    def _table(self, program: Program) -> object:
        """Made once for each program."""
        if program not in self._tables:
            self._tables[program] = _table(program.rows)
        return self._tables[program]

    def _check(self, formats: Formats) -> None:
        for layer, name in formats.items():
            if layer not in self.description.variants:
                raise QCompileError(f"no layer '{layer}' to choose a format for", remedy=nearest(layer, self.layers))
            if name not in self.formats(layer):
                raise QCompileError(
                    f"it cannot be {name}", node=layer, remedy=f"choose one of {', '.join(self.formats(layer))}"
                )

    def _chosen(self, plan: QuantPlan, formats: Formats) -> tuple[int, ...]:
        """The option of each choice."""
        chosen = [0] * len(self.kernels.options)
        for layer, variants in self.description.variants.items():
            chosen[self.kernels.choices[layer]] = find_variant(
                variants, layer, formats.get(layer, FLOAT), plan, self.space.residuals
            )
        return tuple(chosen)


def _table(rows: np.ndarray) -> object:
    """Rows as the library takes them."""
    import tvm_ffi

    table = aligned_empty(rows.shape, np.int64)
    table[...] = rows
    return tvm_ffi.from_dlpack(table)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
