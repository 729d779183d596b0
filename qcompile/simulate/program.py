"""Which kernels a configuration runs, and on which buffers; what another configuration computed is taken from there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.passes.plan_memory import Lifetime, plan_memory
from qcompile.simulate.calls import Call, Kernels, Place

Chosen = tuple[int, ...]  # option of each choice


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Program:
    """The kernel calls of one configuration, to be run on one sample.

    rows: (calls, width) int64, as ``kernels`` has them. where: buffer -> byte offset in memory of its value afterwards.
    targets: byte offsets of what was asked for.
    """

    chosen: Chosen
    rows: np.ndarray
    where: dict[int, int]
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """Where everything begins in memory, in bytes: inputs, and for a buffer its place in one of the areas."""

    inputs: tuple[int, ...]
    areas: tuple[tuple[int, ...], ...]
    size: int


def resolve(place: Place, kernels: Kernels, chosen: Chosen) -> Place:
    """What a place stands for under a configuration: no choice any more."""
    while place.kind == "choice":
        option = kernels.options[place.index][chosen[place.index]]
        place = Place(option.kind, option.index, option.offset + place.offset)
    return place


def needed(kernels: Kernels, chosen: Chosen, targets: Sequence[Place], stop_at_choices: bool = False) -> set[int]:
    """The calls that the targets depend on; with ``stop_at_choices``, within the layers that make them."""
    maker = {result: i for i, call in enumerate(kernels.calls) for result in call.results}
    found: set[int] = set()
    waiting = list(targets)
    while waiting:
        place = waiting.pop()
        if place.kind == "choice" and stop_at_choices:
            continue
        place = resolve(place, kernels, chosen)
        if place.kind == "buffer" and maker[place.index] not in found:
            found.add(maker[place.index])
            waiting.extend(kernels.calls[maker[place.index]].args)
    return found


def write_program(
    kernels: Kernels,
    memory: Memory,
    chosen: Chosen,
    targets: Sequence[Place],
    area: int,
    since: Program | None = None,
    changed: Collection[int] = (),
) -> Program:
    """The program of a configuration, whose results go to an area.

    since: a program that was run on the same sample, whose values are still there: what does not differ is not computed
    again. changed: calls whose constants differ from then.
    """
    wanted = needed(kernels, chosen, targets)
    where: dict[int, int] = {}
    same: set[int] = set()
    rows = []

    def offset(place: Place) -> int:
        if place.kind == "buffer":
            return where[place.index] + place.offset
        return place.offset + (memory.inputs[place.index] if place.kind == "input" else 0)

    for i, call in enumerate(kernels.calls):
        if i not in wanted:
            continue
        args = [resolve(arg, kernels, chosen) for arg in call.args]
        if since is not None and i not in changed and _is_same(call, args, kernels, since, same):
            where.update((result, since.where[result]) for result in call.results)
            same.update(call.results)
            continue
        where.update((result, memory.areas[area][result]) for result in call.results)
        row = [call.kernel, *(offset(arg) for arg in args), *(where[result] for result in call.results)]
        rows.append(row + [0] * (kernels.width - len(row)))
    table = np.array(rows, np.int64).reshape(-1, kernels.width)
    return Program(chosen, table, where, tuple(offset(resolve(t, kernels, chosen)) for t in targets))


def _is_same(call: Call, args: Sequence[Place], kernels: Kernels, since: Program, same: Collection[int]) -> bool:
    """Whether a call computes from the same values what it computed then."""
    return all(result in since.where for result in call.results) and all(
        arg == resolve(old, kernels, since.chosen) and (arg.kind != "buffer" or arg.index in same)
        for arg, old in zip(args, call.args, strict=True)
    )


def lay_out(weights: int, kernels: Kernels, align: Callable[[int], int], areas: int) -> Memory:
    """Constants first, then inputs, then areas with a place for every buffer; pages that nothing touches cost nothing.

    The last area is for results that nothing keeps: buffers that are not in use at the same time share its memory.
    """
    end = align(weights)
    inputs = []
    for size in kernels.input_bytes:
        inputs.append(end)
        end = align(end + size)
    places = []
    for _ in range(areas - 1):
        starts = []
        for size in kernels.sizes:
            starts.append(end)
            end = align(end + size)
        places.append(tuple(starts))
    shared, size = _shared(kernels)
    places.append(tuple(end + start for start in shared))
    return Memory(tuple(inputs), tuple(places), align(end + size))


def _shared(kernels: Kernels) -> tuple[list[int], int]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}

    def read(place: Place, when: int) -> None:
        if place.kind == "buffer":
            last[place.index] = when
        elif place.kind == "choice":
            for option in kernels.options[place.index]:
                read(option, when)

    for i, call in enumerate(kernels.calls):
        for result in call.results:
            first[result] = last[result] = i
        for arg in call.args:
            read(arg, i)
    for output in kernels.outputs:
        read(output, len(kernels.calls))
    return plan_memory([Lifetime(size, first[b], last[b]) for b, size in enumerate(kernels.sizes)])
