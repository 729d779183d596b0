"""The peers' own int8 models, made by their own tools from the float ONNX model, and kept for the next time."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from qcompile.bench.contenders import Contender
from qcompile.errors import QCompileError, nearest

Feed = Mapping[str, np.ndarray]
PEERS = ("onnxruntime", "openvino")
_NEEDS = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino", "nncf")}


def check_peers(names: Sequence[str]) -> None:
    """Raises ``QCompileError`` for a name that is no peer, and for a peer that is not installed."""
    for name in names:
        if name not in PEERS:
            raise QCompileError(f"no peer '{name}'", node="--vs", remedy=nearest(name, PEERS))
        missing = [package for package in _NEEDS[name] if importlib.util.find_spec(package) is None]
        if missing:
            raise QCompileError(
                f"{' and '.join(missing)} not installed", node=f"--vs {name}", remedy="pip install 'qcompile[peers]'"
            )


def peer_contenders(
    names: Sequence[str],
    model: Path,
    calibration: Sequence[Feed],
    feed: Feed,
    threads: int = 1,
    note: Callable[[str], None] = lambda text: None,
) -> list[Contender]:
    """Float and int8 contenders of each peer; int8 models are made from ``calibration`` unless the cache has them.

    A peer whose own tool cannot quantize the model has no int8 contender; ``note`` is told why.
    """
    check_peers(names)
    contenders = []
    for name in names:
        contenders.append(Contender(name, "fp32", model, threads, feed))
        try:
            contenders.append(Contender(name, "int8", int8_model(name, model, calibration), threads, feed))
        except QCompileError as error:
            note(str(error))
    return contenders


def int8_model(
    peer: str, model: Path, calibration: Sequence[Feed], activations: str = "uint8", operators: Sequence[str] = ()
) -> Path:
    """The file of the peer's int8 model: ONNX (QDQ, weights int8 per channel) or OpenVINO IR (NNCF's default).

    activations, operators: for ONNX Runtime, "uint8" or "int8", and the operator types to quantize if not all.

    Raises ``QCompileError`` if the peer's tool fails.
    """
    options = (activations, tuple(operators)) if peer == "onnxruntime" else ()
    folder = _cache() / _key(peer, model, calibration, *options)
    file = folder / ("model.onnx" if peer == "onnxruntime" else "model.xml")
    if not file.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, _quiet():
            new = Path(scratch) / "new"
            new.mkdir()
            quantize = _quantize_onnxruntime if peer == "onnxruntime" else _quantize_openvino
            try:
                quantize(model, calibration, new / file.name, *options)
            except Exception as error:  # the tools raise whatever they meet
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                raise QCompileError(f"no int8 model: its own tool fails ({reason})", node=peer) from error
            with contextlib.suppress(OSError):  # another process was first
                new.rename(folder)
    return file


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcompile" / "peers"


def _key(peer: str, model: Path, calibration: Sequence[Feed], *options: object) -> str:
    digest = hashlib.sha256(model.read_bytes() + repr(options).encode())
    for feed in calibration:
        for name in sorted(feed):
            digest.update(name.encode() + np.ascontiguousarray(feed[name]).tobytes())
    return "-".join([peer, *(version(package) for package in _NEEDS[peer]), digest.hexdigest()[:20]])


class _Reader:
    """ONNX Runtime's calibration data reader."""

    def __init__(self, feeds: Sequence[Feed]):
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def _quantize_onnxruntime(
    model: Path, calibration: Sequence[Feed], out: Path, activations: str, operators: Sequence[str]
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out.with_name("prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out),
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        activation_type={"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}[activations],
        weight_type=QuantType.QInt8,
        op_types_to_quantize=list(operators) or None,
        per_channel=True,
    )
    prepared.unlink()


def _quantize_openvino(model: Path, calibration: Sequence[Feed], out: Path) -> None:
    import nncf
    import openvino as ov

    loaded = ov.Core().read_model(str(model))
    loaded.reshape({name: list(array.shape) for name, array in calibration[0].items()})
    data = nncf.Dataset([dict(feed) for feed in calibration])
    ov.save_model(nncf.quantize(loaded, data, subset_size=len(calibration)), str(out), compress_to_fp16=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tools' remarks and progress bars, which would stand between our own lines."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            yield
    finally:
        logging.disable(before)
