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

    rows: (calls, width) int64, as ``kernels`` has them. calls: which of ``Kernels.calls`` each row is. where: buffer ->
    byte offset in memory of its value afterwards. targets: byte offsets of what was asked for.
    """

    chosen: Chosen
    rows: np.ndarray
    calls: tuple[int, ...]
    where: dict[int, int]
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """Where everything begins in memory, in bytes: inputs, and for a buffer its place in each of the areas that keep
    results; behind these is room for results that nothing keeps."""

    inputs: tuple[int, ...]
    areas: tuple[tuple[int, ...], ...]
    scratch: int
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
    """The program of a configuration, whose results go to an area; one beyond those of ``memory`` keeps none.

    since: a program that was run on the same sample, whose values are still there: what does not differ is not computed
    again. changed: calls whose constants differ from then.
    """
    wanted = needed(kernels, chosen, targets)
    where: dict[int, int] = {}  # of what is taken from ``since``
    todo: list[tuple[int, list[Place]]] = []
    for i, call in enumerate(kernels.calls):
        if i not in wanted:
            continue
        args = [resolve(arg, kernels, chosen) for arg in call.args]
        if since is not None and i not in changed and _is_same(call, args, kernels, since, where):
            where.update((result, since.where[result]) for result in call.results)
        else:
            todo.append((i, args))
    ends = [resolve(target, kernels, chosen) for target in targets]
    results = [result for i, _ in todo for result in kernels.calls[i].results]
    if area < len(memory.areas):
        where.update((result, memory.areas[area][result]) for result in results)
    else:
        where.update(_packed(kernels, todo, ends, memory.scratch))

    def offset(place: Place) -> int:
        if place.kind == "buffer":
            return where[place.index] + place.offset
        return place.offset + (memory.inputs[place.index] if place.kind == "input" else 0)

    rows = np.zeros((len(todo), kernels.width), np.int64)
    for row, (i, args) in zip(rows, todo, strict=True):
        call = kernels.calls[i]
        values = [call.kernel, *(offset(arg) for arg in args), *(where[result] for result in call.results)]
        row[: len(values)] = values
    return Program(chosen, rows, tuple(i for i, _ in todo), where, tuple(offset(end) for end in ends))


def _is_same(call: Call, args: Sequence[Place], kernels: Kernels, since: Program, same: Collection[int]) -> bool:
    """Whether a call computes from the same values what it computed then."""
    return all(result in since.where for result in call.results) and all(
        arg == resolve(old, kernels, since.chosen) and (arg.kind != "buffer" or arg.index in same)
        for arg, old in zip(args, call.args, strict=True)
    )


def _packed(
    kernels: Kernels, todo: Sequence[tuple[int, list[Place]]], ends: Sequence[Place], start: int
) -> dict[int, int]:
    """Places for the results of these calls: buffers that are not in use at the same time share memory, as in a build.

    They fit where all would have a place of their own.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for when, (i, args) in enumerate(todo):
        for result in kernels.calls[i].results:
            first[result] = last[result] = when
        last.update((arg.index, when) for arg in args if arg.kind == "buffer" and arg.index in first)
    last.update((end.index, len(todo)) for end in ends if end.kind == "buffer" and end.index in first)
    starts, _ = plan_memory([Lifetime(kernels.sizes[b], first[b], last[b]) for b in first])
    return {buffer: start + at for buffer, at in zip(first, starts, strict=True)}


def lay_out(weights: int, kernels: Kernels, align: Callable[[int], int], areas: int) -> Memory:
    """Constants first, then inputs, then areas with a place for every buffer; pages that nothing touches cost
    nothing."""
    end = align(weights)
    inputs = []
    for size in kernels.input_bytes:
        inputs.append(end)
        end = align(end + size)
    places = []
    for _ in range(areas):
        starts = []
        for size in kernels.sizes:
            starts.append(end)
            end = align(end + size)
        places.append(tuple(starts))
    return Memory(tuple(inputs), tuple(places), end, end + sum(align(size) for size in kernels.sizes))
