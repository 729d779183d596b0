"""``LockedSchedules``: the schedules of an earlier build, whatever the tuning logs say by now."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qcompile.artifact import MANIFEST
from qcompile.errors import QCompileError
from qcompile.manifest import Manifest, ScheduleInfo
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.template import Schedule
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target
from qcompile.tune.lookup import usable_knobs

_WITHOUT = "build without locking, and lock later builds to the new manifest"


def load_manifest(path: str | Path) -> Manifest:
    """Of an artifact folder, or a ``manifest.json`` by itself. Raises ``QCompileError``."""
    place = Path(path)
    file = place / MANIFEST if place.is_dir() else place
    try:
        return Manifest.from_json(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a manifest"
        raise QCompileError(
            reason, node=str(file), remedy="give a folder made by 'qcompile build', or its manifest.json"
        ) from None


class LockedSchedules:
    """A ``Schedules`` by a manifest. Workloads that it does not have get the default: ``check`` names their layers.

    name: of the target of the whole build, if ``target`` is only one of its architectures.

    Raises ``QCompileError`` for a manifest of another target or another number of threads.
    """

    def __init__(self, manifest: Manifest, target: Target | CudaTarget, name: str = ""):
        if manifest.target != (name or target.name):
            raise QCompileError(
                f"the manifest is of a build for {manifest.target}, this one is for {name or target.name}",
                remedy=f"give --target {manifest.target}",
            )
        if manifest.threads != target.threads:
            there, here = (f"{n} thread{'s' * (n > 1)}" for n in (manifest.threads, target.threads))
            raise QCompileError(
                f"the manifest is of a build for {there}, this one is for {here}",
                remedy=f"give --threads {manifest.threads}",
            )
        self._target = target
        architectures = ("", *(target.architectures if isinstance(target, CudaTarget) else ()))
        mine = [info for info in manifest.schedules if info.architecture in architectures]
        self._schedules = {(info.workload, info.batch): info for info in mine}

    def __call__(self, workload: Workload) -> Schedule:
        info = self._schedules.get((workload.key, workload.batch))
        template = TEMPLATES[workload.operator]
        if info is None or info.template != template.version:
            return Schedule()
        knobs = usable_knobs(info.knobs, workload, self._target)
        if knobs is None:
            raise QCompileError(f"the manifest's knobs are not legal: {info.knobs}", node=info.layer, remedy=_WITHOUT)
        return Schedule(knobs, info.source)

    def check(self, built: Iterable[ScheduleInfo]) -> None:
        """Raises ``QCompileError`` if a layer of a build has a schedule that is not the manifest's."""
        for info in built:
            locked = self._schedules.get((info.workload, info.batch))
            if locked is None:
                raise QCompileError(
                    "the manifest has no schedule for such a layer",
                    node=info.layer,
                    remedy=f"give the same model, plan and input shapes as then, or {_WITHOUT}",
                )
            if locked.template != info.template:
                raise QCompileError(
                    f"the manifest's schedule is for version {locked.template} of the kernel, not for {info.template}",
                    node=info.layer,
                    remedy=f"use the qcompile that built it, or {_WITHOUT}",
                )
