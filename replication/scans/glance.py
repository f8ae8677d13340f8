"""What `--dry-run` says of a scan: how it would be read, from headers and a few planes."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from replication.data.reading.dicom import Dicom
from replication.data.reading.intensity import recognise
from replication.data.reading.nifti import Volume
from replication.data.reading.scan import Scan

LOOKED_AT = 3  # planes, spread over the scan
PACKED = 1 << 23  # bytes: of a packed file, which has to be unpacked up to a plane, this far
NAMES = {"hounsfield": "Hounsfield units", "offset": "Hounsfield units + 1024", "grey": "grey of 0 to 255"}


class Glance(Scan):
    """A scan whose voxels are not read, but for a few planes. Arguments and errors as of `Scan`.

    Attributes:
        numbers: what the planes show of the unit.
        amiss: whether they show none.
    """

    def __init__(self, path: Path, *, intensity: str = "auto", **reading: str | None) -> None:
        self._sample: NDArray | None = None
        self.amiss = False
        super().__init__(path, intensity=None, **reading)
        sample = (self._voxels if self._sample is None else self._sample).ravel()
        try:
            self.numbers = NAMES[recognise(sample[:-1], told=intensity, beside=sample[1:]).kind]
        except ValueError as error:
            self.numbers, self.amiss = f"numbers in doubt: {error}", True

    def _load(self, source: Volume | Dicom) -> NDArray:
        """Nothing but a few planes for the unit; the voxels stand empty."""
        depth = source.shape[2]
        if isinstance(source, Volume) and source.packed:
            depth = min(depth, max(PACKED // (8 * source.shape[0] * source.shape[1]), 1))
        chosen = np.unique(np.linspace(0, depth - 1, LOOKED_AT + 2).astype(int)[1:-1])
        self._sample = np.stack([np.asarray(source.plane(int(k), finite=False), np.float32) for k in chosen])
        return np.broadcast_to(np.int16(0), source.shape)

    def __str__(self) -> str:
        x, y, slices = self.shape
        form = (
            f"DICOM series {self.dicom.series}"
            if self.dicom
            else "NIfTI"
            if self._sample is not None
            else "read by SimpleITK"
        )
        lines = [
            f"{self.path}: {form}, axes {self.axes}, {slices} slices of {x} x {y}, "
            f"{' x '.join(f'{mm:.4g}' for mm in self.spacing)} mm, {self.numbers}"
        ]
        return "\n".join(lines + [f"  note: {note}" for note in [*self.doubts, *self.notes]])
