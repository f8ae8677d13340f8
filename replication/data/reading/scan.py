"""Any scan, as radiologists look at it: a NIfTI file or a DICOM folder, in any axis order and sign.

The header decides how a scan lies, by nibabel's own functions; never its name. What the header cannot
tell, or tells twice and differently, is refused until an option decides. Voxels are read once, as
they are stored, and looked at from the side that is needed: no resampling, so that what is found in the
planes goes back voxel for voxel.
"""

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from replication.data.reading.dicom import Dicom
from replication.data.reading.formats import read_other
from replication.data.reading.intensity import Intensity, recognise
from replication.data.reading.kinds import BY_SIMPLEITK, OTHERS, kind_of
from replication.data.reading.nifti import Volume
from replication.data.reading.orientation import header_axes

AXES = "LAS"  # in which `np.rot90` of a plane is the picture: spine at the bottom, the patient's right on the left
OBLIQUE, SHEARED = 15.0, 1.0  # degrees from which it is said
UNITS = {2: ("mm", 1.0), 1: ("metres", 1e3), 3: ("micrometres", 1e-3)}  # of NIfTI's `xyzt_units`; 0 is mm
PLAUSIBLE = (0.05, 100.0)  # mm: the longest side of a CT's voxel
SAMPLED = 1 << 20  # voxels that are looked at to recognise the unit


class Scan:
    """One scan in memory, its planes axial and from the feet upwards. Planes as of `nifti.Volume`.

    Attributes:
        path: the file or folder.
        shape: (x, y, slices), towards the patient's left, front and head.
        spacing: mm along these.
        axes: how it is stored, such as `RAS`.
        intensity: what its numbers are; None for a mask.
        dicom: the series that it was read from, or None.
        doubts: what puts in question how it lies or what its numbers are.
        notes: what else was odd.

    Raises:
        ValueError: nothing readable; no header that tells how it lies, or two that contradict each
            other (`axes` decides); numbers that are no CT (`intensity` decides).
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        axes: str | None = None,
        intensity: str | None = "auto",
        series: str | None = None,
    ) -> None:
        """Read it.

        Args:
            axes: how it is stored, such as `LPS`, in place of what its header says.
            intensity: `auto`, `hounsfield`, `offset` or `grey` (`intensity`); None for a mask.
            series: number or UID of the DICOM series, where a folder holds several.
        """
        self.path = Path(path)
        self.notes: list[str] = []
        self.doubts: list[str] = []
        self.dicom: Dicom | None = None
        image = self._read(series)
        self._header, self._voxels = image.header, np.asanyarray(image.dataobj)
        self._affine = self._in_mm(image.affine)
        qform = _qform(self._header)
        if header_axes(self._affine)[0] is None and qform is not None and header_axes(qform)[0]:
            self.doubts.append("the sform is none that can be; the qform is taken")
            self._affine = self._in_mm(qform)
        self.axes = check_axes(axes, self.path) if axes else self._told_axes()
        self._turn = orientations.ornt_transform(
            orientations.axcodes2ornt(tuple(self.axes)), orientations.axcodes2ornt(tuple(AXES))
        )
        self._turned = orientations.apply_orientation(self._voxels, self._turn)
        spacing = nib.affines.voxel_sizes(self._affine) if self._affine is not None else np.ones(3)
        if not (np.isfinite(spacing).all() and spacing.min() > 0):
            raise ValueError(
                f"{self.path}: voxels of {' x '.join(f'{mm:g}' for mm in spacing)} mm; write their lengths into the header"
            )
        self.spacing = tuple(float(spacing[int(i)]) for i in np.argsort(self._turn[:, 0]))
        self.intensity: Intensity | Any = None  # None of a mask
        if intensity is not None:
            step = max(self._voxels.size // SAMPLED, 1)
            flat, corners = self._voxels.reshape(-1, order="A"), self._turned[np.ix_((0, -1), (0, -1))]
            try:
                self.intensity = recognise(
                    flat[:-1:step], told=intensity, beside=flat[1::step], corners=corners
                )
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from error
            (self.doubts if self.intensity.kind == "offset" else self.notes).extend(self.intensity.notes)
            self.notes += self.intensity.mend(self._turned[:, :, k] for k in range(self.shape[2]))

    # ---- as `nifti.Volume` -------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, int, int]:
        return self._turned.shape

    @property
    def affine(self) -> NDArray | None:
        """(4, 4) of the turned voxels."""
        if self._affine is None:
            return None
        return self._affine @ orientations.inv_ornt_aff(self._turn, self._voxels.shape)

    def __enter__(self) -> "Scan":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def plane(self, k: int) -> NDArray:
        """Plane k, (x, y): HU or grey of a CT, the stored numbers of a mask."""
        plane = self._turned[:, :, k]
        return self.intensity.apply(plane) if self.intensity else plane

    def finish(self) -> None:
        """Nothing is left to read."""

    # ---- and back ----------------------------------------------------------------------------
    def image(self, mask: NDArray) -> nib.Nifti1Image:
        """A mask (x, y, slices) as an image in the scan's own space: its shape, affine and header's geometry."""
        back = orientations.ornt_transform(
            orientations.axcodes2ornt(tuple(AXES)), orientations.axcodes2ornt(tuple(self.axes))
        )
        voxels = np.ascontiguousarray(orientations.apply_orientation(mask.astype(np.uint8), back))
        header = self._header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        return kind(voxels.reshape(self._header.get_data_shape()), None, header)

    # ---- reading -----------------------------------------------------------------------------
    def _read(self, series: str | None) -> "nib.Nifti1Image | _Stored":
        if not self.path.exists():
            raise FileNotFoundError(
                f"{self.path}: no such file or folder; expected a NIfTI file or a DICOM folder"
            )
        kind = "dicom" if self.path.is_dir() else kind_of(self.path)
        if kind == "dicom":
            self.dicom = Dicom(self.path, series=series)
            voxels = self._load(self.dicom)
            self.notes += self.dicom.notes
            return _Stored(nib.Nifti1Image, voxels, self.dicom)
        if kind in BY_SIMPLEITK:
            return read_other(self.path, kind)
        if kind in OTHERS:
            raise ValueError(f"{self.path}: {OTHERS[kind]}")
        with Volume(self.path) as volume:
            voxels = self._load(volume)
            self.notes += volume.notes
            form = nib.Nifti2Image if isinstance(volume.header, nib.Nifti2Header) else nib.Nifti1Image
            return _Stored(form, voxels, volume)

    def _load(self, source: Volume | Dicom) -> NDArray:
        """All planes as stored and scaled: int16 where that holds them, else float32."""
        voxels = np.empty(source.shape, np.int16, order="F")
        for k in range(source.shape[2]):
            plane = source.plane(k, finite=False)
            if voxels.dtype == np.int16 and not _fits(plane):
                voxels = voxels.astype(np.float32, order="F")
            with np.errstate(over="ignore"):  # beyond float32: infinite, which `Intensity` tells
                voxels[:, :, k] = plane
        if isinstance(source, Volume):
            source.finish()
        return voxels

    def _in_mm(self, affine: NDArray | None) -> NDArray | None:
        """The affine in mm, by the header's code, unless only another fits a CT; a mask's header stays as it came."""
        if affine is None:
            return None
        told = UNITS.get(int(self._header["xyzt_units"]) & 7, UNITS[2])
        longest = nib.affines.voxel_sizes(affine).max()
        fitting = [
            unit for unit in (told, *UNITS.values()) if PLAUSIBLE[0] <= longest * unit[1] <= PLAUSIBLE[1]
        ]
        name, mm = fitting[0] if fitting else UNITS[2]
        if (name, mm) != told:
            self.doubts.append(
                f"the header's unit is {told[0]}, of which voxels would be {longest:g} long: taken as {name}"
            )
        elif mm != 1:
            self.notes.append(f"the header's unit is {name}, not mm: lengths are converted")
        return np.diag([mm, mm, mm, 1.0]) @ affine

    def _told_axes(self) -> str:
        """What the header says, where it says it once."""
        axes, note = header_axes(self._affine)
        if axes is None or not _placed(self._header):
            raise ValueError(
                f"{self.path}: {note or 'neither qform nor sform is set as NIfTI has it, no space or matrix as others have it'}; the header does not tell how the scan "
                "lies. If you know it: --axes, such as LPS (the index counts towards left, back and head)"
            )
        self.doubts += self._oddities(axes)
        return axes

    def _oddities(self, axes: str) -> list[str]:
        notes, header = [], self._header
        q, s = _qform(header), header.get_sform(coded=True)[0]
        of_q, of_s = (header_axes(affine)[0] for affine in (q, s))
        if (
            of_q
            and of_s
            and not np.allclose(np.asarray(q), np.asarray(s), atol=1e-2 * nib.affines.voxel_sizes(s).max())
        ):
            if of_q != of_s:
                raise ValueError(
                    f"{self.path}: its qform says {of_q}, its sform {of_s}; which one holds cannot be told. Name it: "
                    f"--axes {of_s} or --axes {of_q}"
                )
            notes.append("qform and sform differ; the sform is taken")
        units = np.asarray(self._affine)[:3, :3] / nib.affines.voxel_sizes(self._affine)
        shear = max(
            abs(90 - np.degrees(np.arccos(np.clip(units[:, i] @ units[:, j], -1, 1))))
            for i, j in ((0, 1), (0, 2), (1, 2))
        )
        if shear > SHEARED:
            notes.append(
                f"axes sheared by {shear:.0f} degrees (a tilted gantry?): planes are taken as stored"
            )
        off = np.degrees(np.arccos(np.clip(np.abs(units[2, [c in "SI" for c in axes].index(True)]), 0, 1)))
        if off > OBLIQUE:
            notes.append(f"planes lie {off:.0f} degrees off axial; the networks know axial slices only")
        return notes


class _Stored:
    """What of a NIfTI image is needed, without nibabel's own reading of a header that may be odd."""

    def __init__(self, kind: type, voxels: NDArray, volume: Volume | Dicom) -> None:
        self.kind, self.dataobj, self.header, self.affine = kind, voxels, volume.header, volume.affine


def _qform(header: nib.Nifti1Header) -> NDArray | None:
    try:
        return header.get_qform(coded=True)[0]
    except (ValueError, ArithmeticError, nib.spatialimages.HeaderDataError):  # no rotation
        return None


def _placed(header: nib.Nifti1Header) -> bool:
    """Whether qform or sform is set, and by a code that NIfTI knows: other readers take the mask's header, too."""
    codes = [int(header[f"{form}_code"]) for form in ("qform", "sform")]
    return any(codes) and all(0 <= code <= 5 for code in codes)


def _fits(plane: NDArray) -> bool:
    if plane.dtype.kind != "f":
        return -(2**15) <= int(plane.min()) and int(plane.max()) < 2**15
    return bool(np.isfinite(plane).all() and np.abs(plane).max() < 2**15 and (plane == np.rint(plane)).all())


def check_axes(axes: str, path: Path) -> str:
    """Three letters, one of each pair, as capitals.

    Raises:
        ValueError: anything else.
    """
    axes = axes.upper()
    if len(axes) != 3 or any(sum(letter in pair for letter in axes) != 1 for pair in ("LR", "AP", "SI")):
        raise ValueError(
            f"{path}: axes {axes!r}; expected one letter each of L or R, A or P, S or I, such as LPS"
        )
    return axes
