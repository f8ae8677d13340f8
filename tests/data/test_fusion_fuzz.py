"""Fusion of malformed volumes: every case ends in an error that names the file, or in right pixels.

Cases come from seeded generators: bytes of one of the three files of a small volume, replaced. What
a case must give is read from these bytes by a parser of its own, which knows only `struct`, `zlib`
and the NIfTI-1 and -2 layouts: `error` where it finds no volume, pixels where it finds one.
"""

import gzip
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from replication.data.fusing import duplicates
from replication.data.fusing.fusion import fuse

NAME, SIDE, DEPTH = "coronacases_001", 12, 4
CASES = {
    "cut_gzip": 90, "cut_plain": 60, "gzip_bytes": 130, "plain_bytes": 110, "header_bytes": 200,
    "junk": 40, "axes": 70, "not_finite": 30, "float_masks": 50, "shapes": 40, "affines": 60,
    "scaling": 70, "types": 70, "huge": 50, "offsets": 50, "headers_only": 10,
}  # fmt: skip
Planes = dict[str, np.ndarray]
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
         1280: "u8"}  # fmt: skip


def base(rng: np.random.Generator) -> Planes:
    """Lung in planes 1..3 of 4, infection in two of them, HU from -1100 to 1500."""
    shape = (SIDE, SIDE, DEPTH)
    lung, infection = np.zeros((2, *shape), np.uint8)
    lung[2:5, 3:9, 1:], lung[7:10, 3:9, 1:] = 2, 1
    infection[3:5, 4:6, 1:3] = rng.integers(1, 4)
    return {"ct": rng.integers(-1100, 1500, shape).astype(np.int16), "lung": lung, "infection": infection}


def pack(array: np.ndarray, *, kind: type = nib.Nifti1Header, order: str = "<", **fields: object) -> bytes:
    """A single-file NIfTI of these voxels; `fields` overwrite what the header says."""
    header = kind(endianness=order)
    header.set_data_dtype(array.dtype.newbyteorder(order))
    header.set_data_shape(array.shape)
    header["vox_offset"] = kind.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    header.set_sform(np.eye(4), 1)
    with np.errstate(all="ignore"):
        for field, value in fields.items():
            header[field] = value
    return header.binaryblock + bytes(4) + array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")


def parse(data: bytes) -> np.ndarray | None:
    """The scaled voxels of a file's bytes, or None for no CT or mask of three dimensions."""
    if data[:2] == b"\x1f\x8b":
        try:
            unpacked = b""
            while data.strip(b"\0"):
                member = zlib.decompressobj(31)
                unpacked += member.decompress(data)
                if not member.eof:
                    return None
                data = member.unused_data
            data = unpacked
        except zlib.error:
            return None
    order = next(
        (o for o in "<>" if data[:4] in (struct.pack(o + "i", 348), struct.pack(o + "i", 540))), None
    )
    if order is None:
        return None
    if struct.unpack_from(order + "i", data)[0] == 348:
        if len(data) < 352 or data[344:348] != b"n+1\0":
            return None
        dim, (code, bits) = (
            struct.unpack_from(order + "8h", data, 40),
            struct.unpack_from(order + "2h", data, 70),
        )
        (offset, slope, inter), least = struct.unpack_from(order + "3f", data, 108), 352
    else:
        if len(data) < 544 or data[4:12] != b"n+2\0\r\n\x1a\n":
            return None
        (code, bits), dim = (
            struct.unpack_from(order + "2h", data, 12),
            struct.unpack_from(order + "8q", data, 16),
        )
        (offset,), least = struct.unpack_from(order + "q", data, 168), 544
        slope, inter = struct.unpack_from(order + "2d", data, 176)
    shape = dim[1 : 1 + max(dim[0], 0)] if dim[0] < 8 else ()
    shape = shape[:3] if len(shape) == 4 and shape[3] == 1 else shape
    if len(shape) != 3 or min(shape) < 1 or code not in TYPES:
        return None
    dtype = np.dtype(order + TYPES[code])
    count = shape[0] * shape[1] * shape[2]
    if bits != dtype.itemsize * 8 or not (least <= offset < 2**53 and offset == int(offset)):
        return None
    if int(offset) + count * dtype.itemsize > len(data):
        return None
    voxels = np.frombuffer(data, dtype, count, int(offset)).reshape(shape, order="F")
    if slope != 0 and np.isfinite(slope):
        if not np.isfinite(inter):
            return None
        if (slope, inter) != (1, 0):
            with np.errstate(all="ignore"):
                voxels = voxels * np.float64(slope) + np.float64(inter)
    with np.errstate(all="ignore"):
        return voxels if np.isfinite(voxels).all() else None


def expected(files: dict[str, bytes]) -> dict[int, Planes] | None:
    """The kept slices that these three files must give; None for an error."""
    volumes = {part: parse(data) for part, data in files.items()}
    if any(v is None for v in volumes.values()) or len({v.shape for v in volumes.values()}) > 1:
        return None
    for part, labels in (("lung", (0, 1, 2)), ("infection", (0, 1, 2, 3))):
        if not np.isin(volumes[part], labels).all():
            return None
    ct, lung, infection = volumes["ct"], volumes["lung"] > 0, np.isin(volumes["infection"], (1, 2))
    windowed = ct.min() >= 0 and ct.max() <= 255
    low, high, dark = (0, 255, 127) if windowed else (-1250, 250, -500)
    kept = {}
    for k in range(ct.shape[2]):
        plane = ct[..., k].astype(np.float64)
        if plane.max() > max(plane.min(), dark) and lung[..., k].any():
            grey = (np.clip(plane, low, high) - low) * (255 / (high - low))
            kept[k] = {"ct": grey, "lung": lung[..., k], "infection": infection[..., k]}
    return kept


@dataclass
class Tally:
    cases: int = 0
    errors: int = 0
    read: int = 0
    slowest: float = 0.0


@pytest.fixture
def check(tmp_path, monkeypatch) -> Iterator[Callable[..., None]]:
    """Fuse three files' bytes and hold the outcome against `expected`; `check.tally` counts."""
    monkeypatch.setattr(duplicates, "find_duplicates", lambda rows, store: {})
    folder, store, tally = tmp_path / "in", tmp_path / "out", Tally()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))

    def run(files: dict[str, bytes], *, broken: str, suffix: str = ".nii") -> None:
        tally.cases += 1
        paths = {part: folder / part / f"{NAME}{suffix if part == broken else '.nii'}" for part in files}
        for part, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[part])
        wanted, handles, begun = expected(files), open_files(), time.perf_counter()
        try:
            fuse(folder, store, size=SIDE, progress=False, published=True)
        except ValueError as error:
            tally.errors += 1
            assert not wanted, f"refused, though readable: {error}"
            assert (str(paths[broken]) if wanted is None else "every slice of 1 volumes") in str(error)
            assert not (store / "slices.csv").exists() and not (store / "store.json").exists()
        else:
            tally.read += 1
            assert wanted, "read, though nothing can be read from it"
            compare(store, wanted)
        assert open_files() == handles, "a file was left open"
        left = {
            p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file() and p.suffix != ".png"
        }
        assert left <= {"slices.csv", "store.json", ".fusion/settings.json", ".fusion/lock",
                        f".fusion/{NAME}.json"}  # fmt: skip
        assert not list((tmp_path / "temporary").iterdir())
        tally.slowest = max(tally.slowest, time.perf_counter() - begun)
        shutil.rmtree(folder)
        shutil.rmtree(store)

    run.tally = tally
    yield run
    assert tally.slowest < 20  # nothing hangs, even on a busy machine


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def compare(store: Path, wanted: dict[int, Planes]) -> None:
    """Native size, so nothing is resampled; a grey may be rounded either way at a half."""
    assert sorted(p.name for p in (store / "ct").iterdir()) == [f"{NAME}_{k:03d}.png" for k in sorted(wanted)]
    for k, planes in wanted.items():
        for part, plane in planes.items():
            with Image.open(store / part / f"{NAME}_{k:03d}.png") as image:
                found, picture = np.asarray(image, float), np.rot90(plane)
            if picture.shape == found.shape:
                assert np.abs(found - picture).max() <= (0.501 if part == "ct" else 0), (k, part)


# ---- generators: one replaced file each --------------------------------------------------------
Case = tuple[str, bytes, str]  # part, bytes, suffix


def flip(data: bytes, rng: np.random.Generator, *, stop: int | None = None) -> bytes:
    spoilt = bytearray(data)
    for at in rng.integers(0, stop or len(data), rng.integers(1, 4)):
        spoilt[at] ^= rng.integers(1, 256)
    return bytes(spoilt)


def any_part(planes: Planes, rng: np.random.Generator) -> tuple[str, bytes]:
    part = rng.choice(["ct", "lung", "infection"])
    return str(part), pack(planes[part])


def cut_gzip(planes: Planes, rng: np.random.Generator) -> Case:
    part, data = any_part(planes, rng)
    data = gzip.compress(data, int(rng.integers(0, 10)))
    return part, data[: rng.integers(0, len(data))], ".nii.gz"


def cut_plain(planes: Planes, rng: np.random.Generator) -> Case:
    part, data = any_part(planes, rng)
    return part, data[: rng.integers(0, len(data))], ".nii"


def gzip_bytes(planes: Planes, rng: np.random.Generator) -> Case:
    part, data = any_part(planes, rng)
    return part, flip(gzip.compress(data, int(rng.integers(0, 10))), rng), ".nii.gz"


def plain_bytes(planes: Planes, rng: np.random.Generator) -> Case:
    part, data = any_part(planes, rng)
    return part, flip(data, rng), ".nii"


def header_bytes(planes: Planes, rng: np.random.Generator) -> Case:
    part = str(rng.choice(["ct", "lung", "infection"]))
    kind = [nib.Nifti1Header, nib.Nifti2Header][rng.integers(2)]
    data = flip(pack(planes[part], kind=kind), rng, stop=kind.single_vox_offset)
    return part, *((gzip.compress(data, 1), ".nii.gz") if rng.random() < 0.5 else (data, ".nii"))


def junk(planes: Planes, rng: np.random.Generator) -> Case:
    part, data = any_part(planes, rng)
    magic = data[:344] + [b"ni1\0", b"n+2\0", b"\0\0\0\0", b"XXXX"][rng.integers(4)] + data[348:]
    contents = (
        b"", b"<html>404 Not Found</html>", rng.bytes(int(rng.integers(1, 5000))), bytes(2000), magic,
        gzip.compress(b""), gzip.compress(rng.bytes(900)), gzip.compress(gzip.compress(data)),
        data, gzip.compress(data), gzip.compress(data) + b"garbage", gzip.compress(data[:500]) +
        gzip.compress(data[500:]), data + rng.bytes(100), gzip.compress(data + bytes(100)),
        b"\x1f\x8b", data[::-1],
    )  # fmt: skip
    return part, contents[rng.integers(len(contents))], [".nii", ".nii.gz"][rng.integers(2)]


def axes(planes: Planes, rng: np.random.Generator) -> Case:
    part, data = any_part(planes, rng)
    array = planes[part]
    shapes = [(SIDE,), (SIDE, SIDE), (*array.shape, 1), (*array.shape, 2), (*array.shape, 1, 1),
              (SIDE, SIDE, DEPTH, 1, 3), (1, SIDE, SIDE, DEPTH)]  # fmt: skip
    if rng.random() < 0.5:
        return part, pack(np.resize(array, shapes[rng.integers(len(shapes))])), ".nii"
    dim = np.array([3, SIDE, SIDE, DEPTH, 1, 1, 1, 1], np.int16)
    dim[rng.integers(0, 4)] = rng.choice([0, -1, -3, -32768, 8, 9, 1])
    return part, pack(array, dim=dim), ".nii"


def not_finite(planes: Planes, rng: np.random.Generator) -> Case:
    array = planes["ct"].astype([np.float32, np.float64][rng.integers(2)])
    array[tuple(rng.integers(0, array.shape))] = rng.choice([np.nan, np.inf, -np.inf])
    return "ct", pack(array), ".nii"


def float_masks(planes: Planes, rng: np.random.Generator) -> Case:
    part = str(rng.choice(["lung", "infection"]))
    array = planes[part].astype([np.float32, np.float64, np.int16][rng.integers(3)])
    if rng.random() < 0.6:
        strange = [0.5, -1, 4, 255, 1.0001, np.nan, np.inf, 1e30]
        with np.errstate(all="ignore"):
            array[tuple(rng.integers(0, array.shape))] = strange[
                rng.integers(8 if array.dtype.kind == "f" else 4)
            ]
    return part, pack(array), ".nii"


def shapes(planes: Planes, rng: np.random.Generator) -> Case:
    part = str(rng.choice(["ct", "lung", "infection"]))
    shape = np.array([SIDE, SIDE, DEPTH])
    shape[rng.integers(3)] += rng.choice([-3, -1, 1, 5])
    return part, pack(np.resize(planes[part], shape)), ".nii"


def affines(planes: Planes, rng: np.random.Generator) -> Case:
    values = [0, np.nan, np.inf, -np.inf, 1e30, 1e-30, 1, -1, 3e38]
    fields = {
        "srow_x": rng.choice(values, 4), "srow_y": rng.choice(values, 4), "srow_z": rng.choice(values, 4),
        "sform_code": rng.integers(0, 3), "qform_code": rng.integers(-2, 6), "quatern_b": rng.choice(values),
        "quatern_c": rng.choice(values), "qoffset_x": rng.choice(values), "pixdim": rng.choice(values, 8),
        "xyzt_units": rng.integers(0, 256),
    }  # fmt: skip
    part = str(rng.choice(["ct", "lung", "infection"]))
    return part, pack(planes[part], **fields), ".nii"


def scaling(planes: Planes, rng: np.random.Generator) -> Case:
    values = [0, 1, -1, 0.5, 2, 1e-40, 1e-3, 1e4, 1e30, 3e38, -1024, np.nan, np.inf, -np.inf]
    part = str(rng.choice(["ct", "ct", "ct", "lung", "infection"]))
    return part, pack(planes[part], scl_slope=rng.choice(values), scl_inter=rng.choice(values)), ".nii"


def types(planes: Planes, rng: np.random.Generator) -> Case:
    part = str(rng.choice(["ct", "lung", "infection"]))
    array, order = planes[part], "<>"[rng.integers(2)]
    if rng.random() < 0.25:
        code = int(rng.choice([0, 1, 32, 128, 255, 1536, 1792, 2304, 2048, 3, 777, -4]))
        return (
            part,
            pack(array, order=order, datatype=code, bitpix=rng.choice([0, 1, 16, 24, 64, 128])),
            ".nii",
        )
    choices = ["i2", "i4", "i8", "f4", "f8", "u2", "u4", "u8", "i1", "c8", "c16"]
    array = array.astype(choices[rng.integers(len(choices))])
    kind = [nib.Nifti1Header, nib.Nifti2Header][rng.integers(2)]
    return part, pack(array, kind=kind, order=order), ".nii"


def huge(planes: Planes, rng: np.random.Generator) -> Case:
    part = str(rng.choice(["ct", "lung", "infection"]))
    if rng.random() < 0.5:
        dim = np.array([3, 1, 1, 1, 1, 1, 1, 1], np.int64)
        dim[1:4] = rng.integers(2**20, 2**62, 3)
        data = pack(planes[part], kind=nib.Nifti2Header, dim=dim)
    else:
        data = pack(planes[part], dim=[3, *rng.integers(2000, 32767, 3), 1, 1, 1, 1])
    return part, *((gzip.compress(data, 1), ".nii.gz") if rng.random() < 0.5 else (data, ".nii"))


def offsets(planes: Planes, rng: np.random.Generator) -> Case:
    part, _ = any_part(planes, rng)
    values = [np.nan, np.inf, -np.inf, -352, 0, 1, 100, 351, 352.5, 353, 368, 1e4, 1e9, 1e30, 3e38]
    data = pack(planes[part], vox_offset=rng.choice(values)) + bytes(int(rng.choice([0, 1, 16, 20000])))
    return part, data, ".nii"


def headers_only(planes: Planes, rng: np.random.Generator) -> Case:
    part, data = any_part(planes, rng)
    data = data[: rng.choice([348, 352])]
    return part, *((gzip.compress(data), ".nii.gz") if rng.random() < 0.5 else (data, ".nii"))


@pytest.mark.parametrize("family", CASES)
def test_a_malformed_file_ends_in_an_error_or_in_right_pixels(check, family):
    for number in range(CASES[family]):
        rng = np.random.default_rng([zlib.crc32(family.encode()), number])
        planes = base(rng)
        part, data, suffix = globals()[family](planes, rng)
        files = {name: pack(array) for name, array in planes.items()} | {part: data}
        try:
            check(files, broken=part, suffix=suffix)
        except AssertionError as error:
            raise AssertionError(f"{family} {number}, {part}: {error}") from error
    assert check.tally.cases == CASES[family]
    if family in ("cut_gzip", "cut_plain", "shapes", "not_finite", "huge", "headers_only"):
        assert check.tally.errors == CASES[family]
    elif family == "affines":
        assert check.tally.read == CASES[family]
    else:
        assert min(check.tally.errors, check.tally.read) >= 3, check.tally  # both ends are met


def test_there_are_a_thousand_cases():
    assert sum(CASES.values()) >= 1000


def test_a_good_volume_is_read(check):
    for number in range(4):
        planes = base(np.random.default_rng(number))
        check({part: pack(array) for part, array in planes.items()}, broken="ct")
    assert check.tally.read == 4


def test_declared_sizes_are_not_allocated(check):
    import tracemalloc

    planes = base(np.random.default_rng(0))
    giant = pack(planes["ct"], dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    deep = pack(planes["ct"], kind=nib.Nifti2Header, dim=[3, 12, 12, 2**45, 1, 1, 1, 1])
    tracemalloc.start()
    try:
        for data in (
            giant,
            deep,
            gzip.compress(giant),
            gzip.compress(deep),
            gzip.compress(giant + bytes(8 << 20)),
        ):
            # All three files alike: their shapes agree, so that nothing but the size is wrong.
            check(dict.fromkeys(planes, data), broken="ct")
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert check.tally.errors == 5


@pytest.mark.parametrize("part", ["ct", "lung", "infection"])
def test_what_is_no_file_is_named(tmp_path, part):
    planes = base(np.random.default_rng(0))
    for name, array in planes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{NAME}.nii").write_bytes(pack(array))
    path = tmp_path / part / f"{NAME}.nii"
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"{part}/{NAME}.nii: expected a file, not a folder"):
        fuse(tmp_path, tmp_path / "out", progress=False, published=True)
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="or a broken link"):
        fuse(tmp_path, tmp_path / "out", progress=False, published=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    for name, array in base(np.random.default_rng(0)).items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{NAME}.nii").write_bytes(pack(array))
    path = tmp_path / "lung" / f"{NAME}.nii"
    path.chmod(0)
    with pytest.raises(ValueError, match=f"{path}: cannot be read .Permission denied"):
        fuse(tmp_path, tmp_path / "out", progress=False, published=True)
