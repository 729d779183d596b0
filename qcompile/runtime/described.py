"""What every runner of an artifact says of it."""

from __future__ import annotations

from qcompile.manifest import Manifest, TensorInfo


class Described:
    """A runner of the artifact that ``manifest`` describes."""

    manifest: Manifest

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self.manifest.outputs
