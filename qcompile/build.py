"""``build``: a model and a plan become an artifact on disk."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompile.artifact import Artifact, check_output, write_artifact
from qcompile.compile import compile_entry
from qcompile.compile_cuda import compile_programs
from qcompile.graph import read
from qcompile.layers import calls_of, describe_layers, schedules_of
from qcompile.manifest import KernelCall, Launch, Manifest, ScheduleInfo, TensorInfo
from qcompile.model import Model, TensorSpec
from qcompile.passes.emit_entry import emit_entry
from qcompile.passes.lower_cuda import lower_cuda_each
from qcompile.passes.lower_layers import KernelNote, kernel_notes
from qcompile.passes.pipeline import form_passes, lowering_passes, run_passes, tidy_passes
from qcompile.passes.runtime_calls import check_runtime_calls
from qcompile.plan import QuantPlan
from qcompile.scaled import model_for
from qcompile.targets.cuda.compiler import find_compiler
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.template import Schedules
from qcompile.targets.select import select_row
from qcompile.targets.target import Target
from qcompile.tune.locked import LockedSchedules, load_manifest
from qcompile.tune.lookup import DEFAULT_RECORDS, LoggedSchedules, open_logs

if TYPE_CHECKING:
    import numpy as np
    from tvm.ir import IRModule
    from tvm.ir.transform import Pass


def build(
    model: Model,
    plan: QuantPlan | None = None,
    target: str | Target | CudaTarget = "native",
    *,
    out: str | Path | None = None,
    threads: int = 1,
    passes: Sequence[Pass] | None = None,
    dump_ir: str | Path | None = None,
    notes: Sequence[str] = (),
    tuning_records: str | Path | Sequence[str | Path] = DEFAULT_RECORDS,
    locked: str | Path | Manifest | None = None,
) -> Artifact:
    """Compiles ``model`` by ``plan`` for ``target``.

    plan: an empty plan (the default) leaves every layer in float32.
    out: artifact folder, replaced as a whole when the new one is complete; a temporary one, gone with this process, if
    None.
    threads: threads that large kernels are split for.
    passes: what leads from the tidied float form to the integer form, instead of ``form_passes(plan, model.layers)``.
    dump_ir: folder that gets the module after each pass, numbered.
    notes: remarks to keep in the manifest, beside the model's own.
    tuning_records: the logs that schedules are taken from, first hit first: "default" for the user's own, if there is
    one, and those that come with the package; "none"; a path, paths in one string separated by commas, or a sequence.
    locked: a manifest (or where it is: an artifact folder or a file) whose schedules are used instead of any log's, so
    that the same model, plan and tools give the same bytes. Every layer with a schedule must be in it.

    Raises ``QCompileError`` for what cannot be compiled or written; an older artifact at ``out`` then stays as it was.
    """
    if out is not None:
        check_output(out)
    row = (select_row(target) if isinstance(target, str) else target).with_threads(threads)
    plan = plan or QuantPlan()
    model = model_for(model, plan)
    dump = Path(dump_ir) if dump_ir else None
    forming = list(form_passes(plan, model.layers) if passes is None else passes)
    first = len(tidy_passes())
    if isinstance(row, CudaTarget):
        find_compiler()  # that there is none is told before the work
        integer = run_passes(model.module, forming, dump, first)
        with _schedules_each(row, tuning_records, locked) as each:
            code = _gpu_code(integer, row, each, dump)
    else:
        with _schedules(row, tuning_records, locked) as schedules:
            integer = run_passes(model.module, forming, dump, first)
            code = _cpu_code(integer, row, schedules, dump, first + len(forming))
    main = read(integer)
    manifest = Manifest(
        model=Path(model.source).name,
        model_sha256=model.source_sha256,
        model_bytes=model.source_bytes,
        target=row.name,
        triple=row.triple,
        features=row.features,
        threads=threads,
        inputs=tuple(_info(s, p.ty, plan) for s, p in zip(model.inputs, main.params, strict=True)),
        outputs=tuple(_info(s, o.ty, plan) for s, o in zip(model.outputs, main.outputs, strict=True)),
        workspace_bytes=code.workspace,
        layers=describe_layers(model, plan, integer, code.notes),
        calls=code.calls,
        launches=code.launches,
        schedules=code.schedules,
        notes=(*model.notes, *notes),
    )
    place = out if out is not None else _temporary_folder() / "artifact"
    return write_artifact(place, module=code.library, weights=code.weights, manifest=manifest, plan=plan)


def _temporary_folder() -> Path:
    """Not gone with the ``Artifact``: ``load(build(model).path)`` outlives it."""
    folder = Path(tempfile.mkdtemp(prefix="qcompile-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a fork of it, which ends earlier
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Code:
    """What becomes of an integer form. library: as ``write_artifact`` takes it. notes: of its kernels."""

    library: Any
    weights: np.ndarray
    workspace: int
    notes: Sequence[KernelNote]
    calls: tuple[KernelCall, ...]
    launches: Mapping[str, tuple[Launch, ...]] = field(default_factory=dict)
    schedules: tuple[ScheduleInfo, ...] = ()


def _cpu_code(integer: IRModule, target: Target, schedules: Schedules, dump: Path | None, first: int) -> _Code:
    lowered = run_passes(integer, lowering_passes(target, schedules), dump, first)
    used = schedules_of(lowered)
    if isinstance(schedules, LockedSchedules):
        schedules.check(used)
    entry = emit_entry(lowered)
    check_runtime_calls(entry.module)
    library, calls = compile_entry(entry, target), calls_of(entry, lowered)
    return _Code(library, entry.weights, entry.workspace, kernel_notes(lowered), calls, schedules=used)


def _gpu_code(
    integer: IRModule, target: CudaTarget, schedules: Callable[[CudaTarget], Schedules], dump: Path | None
) -> _Code:
    known = {row.architecture: schedules(row) for row in target.each()}
    programs, notes = lower_cuda_each(integer, target, lambda row: known[row.architecture])
    used = {arch: tuple(note.schedule for note in each if note.schedule) for arch, each in notes.items()}
    for arch, of in known.items():
        if isinstance(of, LockedSchedules):
            of.check(used[arch])
    for arch, program in programs.items() if dump is not None else ():
        (dump / f"kernels_{arch}.cu").write_text(program.source, encoding="utf-8")
    library = compile_programs(programs, target, find_compiler())
    last, newest = programs[target.architectures[-1]], notes[target.architectures[-1]]
    calls = tuple(KernelCall(note.kernel, note.layer) for note in newest)
    workspace = max(program.workspace for program in programs.values())
    launches = {arch: program.launches for arch, program in programs.items()}
    schedules_used = tuple(info for infos in used.values() for info in infos)
    return _Code(library, last.weights, workspace, newest, calls, launches, schedules_used)


@contextlib.contextmanager
def _schedules_each(
    target: CudaTarget, records: str | Path | Sequence[str | Path], locked: str | Path | Manifest | None
) -> Iterator[Callable[[CudaTarget], Schedules]]:
    """What is known of good knobs on each architecture of a target."""
    if locked is not None:
        manifest = locked if isinstance(locked, Manifest) else load_manifest(locked)
        yield lambda row: LockedSchedules(manifest, row, target.name)
        return
    with open_logs(records) as logs:
        yield lambda row: LoggedSchedules(logs, row)


@contextlib.contextmanager
def _schedules(
    target: Target, records: str | Path | Sequence[str | Path], locked: str | Path | Manifest | None
) -> Iterator[Schedules]:
    if locked is not None:
        yield LockedSchedules(locked if isinstance(locked, Manifest) else load_manifest(locked), target)
        return
    with open_logs(records) as logs:
        yield LoggedSchedules(logs, target)


def _info(spec: TensorSpec, ty: object, plan: QuantPlan) -> TensorInfo:
    dtype = str(ty.dtype)  # type: ignore[attr-defined]
    codes = plan.tensors[spec.name].affine if dtype != spec.dtype and spec.name in plan.tensors else None
    return TensorInfo(spec.name, spec.shape, dtype, codes)
