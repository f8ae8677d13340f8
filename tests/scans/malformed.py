"""Malformed scans, NIfTI and DICOM, from a seed: every one must end in a clear error or in a whole result.

    python tests/scans/malformed.py --cases 10000 --out results/robustness/malformed.json

writes what became of how many. A case is a good scan with one thing wrong; it is segmented, by a cascade
of thresholds, into a folder of its own. Good ends: masks of the scan's shape, or an error of the kinds that
the commands turn into a line, which names the scan. Bad ones: another exception, a result that is not whole,
a folder left behind, more than `SLOW` seconds.
"""

import argparse
import gzip
import shutil
import signal
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from chest import Dark, cascade_of, write_dicom  # noqa: E402

from replication.scans.output import INFECTION, LUNGS, PREVIEW, REPORT, write_segmentation  # noqa: E402
from replication.scans.steps import Cleaning  # noqa: E402

SLOW = 30
EYES = cascade_of(Dark(0.02, 0.45), Dark(0.25, 0.45), size=32, name="thresholds")
AFFINE = np.diag([-8.0, 8, 12, 1])
NIFTI = ("bytes of the header", "bytes anywhere", "cut", "cut gzip", "bytes of the gzip", "junk", "dimensions", "affine",
         "codes", "type", "scaling", "offset", "not finite", "values", "outliers", "labels")  # fmt: skip
DICOM = ("bytes of one file", "cut file", "junk file", "tag gone", "tag changed", "tag changed in one", "positions", "empty file",
         "pixels short", "syntax", "tags emptied")  # fmt: skip
TAGS: dict[str, list[Any]] = {
    "Rows": [0, 1, 7, 65535], "Columns": [0, 3, 65535], "BitsAllocated": [1, 8, 32, 12], "BitsStored": [0, 8, 33],
    "PixelRepresentation": [1, 7], "SamplesPerPixel": [0, 3], "PixelSpacing": [[0, 0], [1], [-1, 2], ["nan", 1]],
    "ImageOrientationPatient": [[0] * 6, [1, 0, 0], [1, 0, 0, 1, 0, 0], ["nan"] * 6, [0, 0, 1, 0, 1, 0]],
    "ImagePositionPatient": [[0, 0, 0], [1, 2], ["inf", 0, 0]], "RescaleSlope": [0, "1e30", -1], "RescaleIntercept": ["nan", "1e9", 0],
    "Modality": ["MR", "", "SR"], "ImageType": [["DERIVED", "SECONDARY", "LOCALIZER"], []], "SeriesInstanceUID": ["", "1.2"],
    "NumberOfFrames": [0, 4, -1], "PhotometricInterpretation": ["MONOCHROME1", "RGB", ""], "SliceThickness": [0, -3],
}  # fmt: skip


EMPTIED = ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID", "Modality", "ImageType",
           "SeriesNumber", "SeriesDescription", "InstanceNumber", "PatientID", "PixelSpacing", "ImagePositionPatient", "RescaleSlope",
           "RescaleIntercept", "PhotometricInterpretation", "SamplesPerPixel", "BitsStored", "PixelRepresentation", "Rows")  # fmt: skip


def chest(rng: np.random.Generator) -> np.ndarray:
    """Air, a body and two lungs, 16 x 14 x 6."""
    hu = np.full((16, 14, 6), -1000, np.int16)
    hu[2:-2, 2:-2] = 40
    hu[4:7, 4:10, 1:] = hu[9:12, 4:10, 1:] = -820
    return hu + rng.integers(-15, 15, hu.shape).astype(np.int16)


def spoil(
    data: bytes, rng: np.random.Generator, *, start: int = 0, end: int | None = None, most: int = 6
) -> bytes:
    """Some bytes of a part replaced."""
    out = bytearray(data)
    for _ in range(rng.integers(1, most + 1)):
        out[rng.integers(start, min(end or len(out), len(out)))] = rng.integers(256)
    return bytes(out)


def make_nifti(kind: str, folder: Path, rng: np.random.Generator) -> Path:
    """One malformed NIfTI file."""
    hu = chest(rng).astype(np.float32 if kind in ("not finite", "outliers") else np.int16)
    if kind == "outliers":
        any_value = (3071, 43030, 65530, -32768, 1e30, np.nan, np.inf, -1e9)
        hu.flat[rng.choice(hu.size, rng.integers(1, 4))] = rng.choice(any_value)
    if kind == "labels":
        hu = (rng.integers(1, 9, 3)[np.digitize(hu, (-900, -500))] - rng.integers(0, 2)).astype(np.int16)
    if kind == "not finite":
        hu[rng.random(hu.shape) < rng.choice([0.01, 0.4, 0.9])] = rng.choice([np.nan, np.inf, -np.inf])
    if kind == "values":
        hu = rng.choice([hu * 0, hu // 3, np.abs(hu) * 9, np.clip(hu, -160, 240), hu + 7000], axis=0).astype(
            np.int16
        )
    image = nib.Nifti1Image(hu, AFFINE)
    image.update_header()
    header = image.header
    wild = rng.choice([0.0, 1e-9, 1e9, np.nan, np.inf, -1.0, 30000.0])
    if kind == "dimensions":
        header["dim"][rng.integers(8)] = rng.choice([-1, 0, 1, 2, 5, 300, 32767])
    if kind == "affine":
        header[rng.choice(["srow_x", "srow_y", "srow_z"])][rng.integers(4)] = wild
        header["quatern_b"], header["pixdim"][rng.integers(8)] = rng.normal(), wild
    if kind == "codes":
        header["qform_code"], header["sform_code"] = rng.integers(-1, 6, 2)
        header["quatern_d"] = rng.choice([0, 1, 0.7, 5])
    if kind == "scaling":
        header["scl_slope"], header["scl_inter"] = rng.choice([0.0, 1.0, 0.5, np.nan, 1e30, -1.0], 2)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    packed = header.binaryblock + bytes(4) + hu.tobytes(order="F")
    field = {"type": (70, "<h"), "offset": (108, "<f")}.get(kind)
    if field:
        value = (
            rng.choice([0, 1, 2, 8, 16, 64, 128, 768, 1536, 2304])
            if kind == "type"
            else rng.choice([0, 8, 352, 360, 1e7, -5, np.nan])
        )
        packed = (
            packed[: field[0]] + struct.pack(field[1], value) + packed[field[0] + struct.calcsize(field[1]) :]
        )
    packed = {
        "bytes of the header": lambda: spoil(packed, rng, end=352), "bytes anywhere": lambda: spoil(packed, rng),
        "cut": lambda: packed[: rng.integers(len(packed))], "junk": lambda: rng.bytes(int(rng.integers(600))),
        "cut gzip": lambda: (z := gzip.compress(packed, mtime=0))[: rng.integers(len(z))],
        "bytes of the gzip": lambda: spoil(gzip.compress(packed, mtime=0), rng),
    }.get(kind, lambda: packed)()  # fmt: skip
    path = folder / f"scan.nii{'.gz' if 'gzip' in kind else ''}"
    path.write_bytes(packed)
    return path


def make_dicom(kind: str, folder: Path, rng: np.random.Generator) -> Path:
    """One malformed DICOM series."""
    import pydicom

    tag = str(rng.choice(list(TAGS)))
    value = TAGS[tag][rng.integers(len(TAGS[tag]))]
    series = write_dicom(folder / "series", chest(rng), AFFINE)
    files = sorted(series.iterdir())
    one = files[rng.integers(len(files))]
    some = rng.choice(EMPTIED, rng.integers(1, 8), replace=False)  # as an anonymiser does it
    for path in files if kind in ("tag gone", "tag changed", "tags emptied") else [one]:
        if kind == "tags emptied":
            data = pydicom.dcmread(path)
            for name in some:
                data[name].value = None
            data.save_as(path, enforce_file_format=False)
        if kind in ("tag gone", "tag changed", "tag changed in one", "positions", "pixels short", "syntax"):
            data = pydicom.dcmread(path)
            if kind == "tag gone" and tag in data:
                delattr(data, tag)
            elif kind == "positions":
                data.ImagePositionPatient[rng.integers(3)] += float(rng.choice([1, 12, -40, 1000]))
            elif kind == "pixels short":
                data.PixelData = data.PixelData[: 2 * rng.integers(len(data.PixelData) // 2)]
            elif kind == "syntax":
                data.file_meta.TransferSyntaxUID = str(
                    rng.choice(["1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5", "1.2.3"])
                )
            elif kind.startswith("tag changed"):
                element = data[tag] if tag in data else None
                with pydicom.config.disable_value_validation():
                    if element is None:
                        setattr(data, tag, value)
                    else:
                        element.value = value
            try:
                data.save_as(path, enforce_file_format=False)
            except Exception:  # pydicom would not write it: by hand, then
                path.write_bytes(spoil(path.read_bytes(), rng, start=132))
    whole = one.read_bytes()
    if kind == "bytes of one file":
        one.write_bytes(spoil(whole, rng, start=132))
    if kind == "cut file":
        one.write_bytes(whole[: rng.integers(132, len(whole))])
    if kind == "junk file":
        one.write_bytes(whole[:132] + rng.bytes(int(rng.integers(400))))
    if kind == "empty file":
        one.write_bytes(b"")
    return series


def outcome(path: Path, out: Path) -> str:
    """`whole`, `refused`, or what went wrong."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SLOW} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SLOW)
    try:
        write_segmentation(
            path,
            out,
            cascade=EYES,
            cleaning=Cleaning(),
            axes=None,
            intensity="auto",
            series=None,
        )
    except TimeoutError:
        return "hung"
    except (ValueError, OSError) as error:
        if out.exists() or any(out.parent.glob(".*.part")):
            return "left something behind"
        return "refused" if str(path) in str(error) else f"an error that names nothing: {error}"
    except Exception as error:
        return f"crashed: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    names = sorted(p.name for p in out.iterdir())
    masks = [nib.load(out / name) for name in (LUNGS, INFECTION)]
    right = names == sorted((LUNGS, INFECTION, PREVIEW, REPORT)) and masks[0].shape == masks[1].shape
    return "whole" if right else f"not whole: {names}"


def run(cases: int, *, seed: int = 0, folder: Path) -> dict[str, Counter]:
    """What became of so many cases, by kind."""
    kinds = [(make_nifti, f"NIfTI: {k}", k) for k in NIFTI] + [(make_dicom, f"DICOM: {k}", k) for k in DICOM]
    became: dict[str, Counter] = {name: Counter() for _, name, _ in kinds}
    for case in range(cases):
        make, name, kind = kinds[case % len(kinds)]
        here = folder / f"{case}"
        here.mkdir()
        with np.errstate(all="ignore"):
            path = make(kind, here, np.random.default_rng([seed, case]))
            became[name][outcome(path, here / "out")] += 1
        shutil.rmtree(here)
    return became


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    from replication.files import write_json
    from replication.provenance import digest, environment

    with tempfile.TemporaryDirectory() as folder:
        became = run(options.cases, seed=options.seed, folder=Path(folder))
    total = sum(became.values(), Counter())
    record = {"cases": options.cases, "seed": options.seed, "total": dict(total),
              "kinds": {name: dict(sorted(of.items())) for name, of in became.items()}, **environment()}  # fmt: skip
    write_json(options.out, record | {"digest": digest(record)})
    print(dict(total))
    return int(bool(set(total) - {"whole", "refused"}))


if __name__ == "__main__":
    sys.exit(main())
