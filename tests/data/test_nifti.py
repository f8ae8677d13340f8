"""Malformed NIfTI files: every one ends in an error that names it, or in the right voxels.

Cases come from seeded generators. What a case must give is read from its bytes by a parser of its
own, which knows only `struct`, `zlib` and the NIfTI-1 and -2 layouts.
"""

import gzip
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from numpy.random import Generator

from replication.data.reading import nifti
from replication.data.reading.nifti import Volume

SIDE, DEPTH = 12, 4
LABELS = {"lung": 2, "infection": 3}  # of a mask; a CT has none
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
         1280: "u8"}  # fmt: skip
KINDS = (nib.Nifti1Header, nib.Nifti2Header)
ODD = (0, 1, -1, 0.5, 2, 1e-40, 1e-3, 1e4, 1e30, 3e38, -1024, np.nan, np.inf, -np.inf)


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


def unpacked(data: bytes) -> bytes:
    """The members of a gzip, each to its checksum."""
    found = b""
    while data.strip(b"\0"):
        member = zlib.decompressobj(31)
        found += member.decompress(data)
        if not member.eof:
            raise zlib.error("cut short")
        data = member.unused_data
    return found


def parse(data: bytes, part: str) -> np.ndarray | None:
    """The scaled voxels of a file's bytes, or None for no CT or mask of three dimensions."""
    try:
        data = unpacked(data) if data[:2] == b"\x1f\x8b" else data
    except zlib.error:
        return None
    order = next((o for o in "<>" if data[:4] in (struct.pack(o + "i", n) for n in (348, 540))), None)
    if order is None:
        return None

    def at(layout: str, start: int) -> tuple:
        return struct.unpack_from(order + layout, data, start)

    if at("i", 0) == (348,):
        if len(data) < 352 or data[344:348] != b"n+1\0":
            return None
        dim, (code, bits), (offset, slope, inter), least = at("8h", 40), at("2h", 70), at("3f", 108), 352
    else:
        if len(data) < 544 or data[4:12] != b"n+2\0\r\n\x1a\n":
            return None
        dim, (code, bits), (offset,), (slope, inter) = at("8q", 16), at("2h", 12), at("q", 168), at("2d", 176)
        least = 544
    shape = dim[1 : 1 + max(dim[0], 0)] if dim[0] < 8 else ()
    shape = shape[:3] if len(shape) == 4 and shape[3] == 1 else shape
    if len(shape) != 3 or min(shape) < 1 or code not in TYPES:
        return None
    dtype, count = np.dtype(order + TYPES[code]), shape[0] * shape[1] * shape[2]
    if bits != dtype.itemsize * 8 or not (least <= offset < 2**53 and offset == int(offset)):
        return None
    if int(offset) + count * dtype.itemsize > len(data):
        return None
    voxels = np.frombuffer(data, dtype, count, int(offset)).reshape(shape, order="F")
    with np.errstate(all="ignore"):
        if slope != 0 and np.isfinite(slope) and (slope, inter) != (1, 0):
            voxels = voxels * np.float64(slope) + np.float64(inter)
        right = np.isfinite(voxels) if part == "ct" else np.isin(voxels, range(LABELS[part] + 1))
    return voxels if right.all() else None


def read(path: Path, part: str, scratch: Path | None) -> np.ndarray:
    """As a fusion reads it: plane by plane, then what follows up to the checksum."""
    with Volume(path, scratch=scratch) as volume:
        planes = range(volume.shape[2])
        voxels = [volume.mask(k, labels=LABELS[part]) if part in LABELS else volume.plane(k) for k in planes]
        volume.finish()
    return np.stack(voxels, -1)


# ---- generators: voxels -> a file's bytes -------------------------------------------------------


def flip(data: bytes, rng: Generator, *, stop: int | None = None) -> bytes:
    spoilt = bytearray(data)
    for at in rng.integers(0, stop or len(data), rng.integers(1, 4)):
        spoilt[at] ^= rng.integers(1, 256)
    return bytes(spoilt)


def flip_packed(array: np.ndarray, rng: Generator) -> bytes:
    """Anywhere, or in the gzip's own header, of which a part means nothing."""
    return flip(gzip.compress(pack(array), rng.integers(10)), rng, stop=[None, 12][rng.integers(2)])


def perhaps_packed(data: bytes, rng: Generator) -> bytes:
    return gzip.compress(data, 1) if rng.random() < 0.5 else data


def cut(data: bytes, rng: Generator) -> bytes:
    return data[: rng.integers(0, len(data))]


def header_bytes(array: np.ndarray, rng: Generator) -> bytes:
    kind = KINDS[rng.integers(2)]
    return perhaps_packed(flip(pack(array, kind=kind), rng, stop=kind.single_vox_offset), rng)


def junk(array: np.ndarray, rng: Generator) -> bytes:
    data = pack(array)
    magic = data[:344] + [b"ni1\0", b"n+2\0", b"\0\0\0\0", b"XXXX"][rng.integers(4)] + data[348:]
    contents = (
        b"", b"<html>404 Not Found</html>", rng.bytes(int(rng.integers(1, 5000))), bytes(2000), magic,
        gzip.compress(b""), gzip.compress(rng.bytes(900)), gzip.compress(gzip.compress(data)),
        data, gzip.compress(data), gzip.compress(data) + b"garbage", gzip.compress(data[:500]) +
        gzip.compress(data[500:]), data + rng.bytes(100), gzip.compress(data + bytes(100)),
        b"\x1f\x8b", data[::-1],
    )  # fmt: skip
    return contents[rng.integers(len(contents))]


def axes(array: np.ndarray, rng: Generator) -> bytes:
    shapes = [(SIDE,), (SIDE, SIDE), (*array.shape, 1), (*array.shape, 2), (*array.shape, 1, 1),
              (SIDE, SIDE, DEPTH, 1, 3), (1, SIDE, SIDE, DEPTH)]  # fmt: skip
    if rng.random() < 0.5:
        return pack(np.resize(array, shapes[rng.integers(len(shapes))]))
    dim = np.array([3, SIDE, SIDE, DEPTH, 1, 1, 1, 1], np.int16)
    dim[rng.integers(0, 4)] = rng.choice([0, -1, -3, -32768, 8, 9, 1])
    return pack(array, dim=dim)


def strange_value(array: np.ndarray, rng: Generator, *, values: tuple[float, ...]) -> bytes:
    array = array.astype([np.float32, np.float64][rng.integers(2)])
    with np.errstate(all="ignore"):
        array[tuple(rng.integers(0, array.shape))] = rng.choice(values)
    return pack(array)


def affines(array: np.ndarray, rng: Generator) -> bytes:
    values = [0, np.nan, np.inf, -np.inf, 1e30, 1e-30, 1, -1, 3e38]
    fields = {
        "srow_x": rng.choice(values, 4), "srow_y": rng.choice(values, 4), "srow_z": rng.choice(values, 4),
        "sform_code": rng.integers(0, 3), "qform_code": rng.integers(-2, 6), "quatern_b": rng.choice(values),
        "quatern_c": rng.choice(values), "qoffset_x": rng.choice(values), "pixdim": rng.choice(values, 8),
        "xyzt_units": rng.integers(0, 256),
    }  # fmt: skip
    return pack(array, **fields)


def types(array: np.ndarray, rng: Generator) -> bytes:
    order = "<>"[rng.integers(2)]
    if rng.random() < 0.25:
        code = int(rng.choice([0, 1, 32, 128, 255, 1536, 1792, 2304, 2048, 3, 777, -4]))
        return pack(array, order=order, datatype=code, bitpix=rng.choice([0, 1, 16, 24, 64, 128]))
    choices = ["i2", "i4", "i8", "f4", "f8", "u2", "u4", "u8", "i1", "c8", "c16"]
    return pack(array.astype(choices[rng.integers(len(choices))]), kind=KINDS[rng.integers(2)], order=order)


def huge(array: np.ndarray, rng: Generator) -> bytes:
    if rng.random() < 0.5:
        dim = np.array([3, 1, 1, 1, 1, 1, 1, 1], np.int64)
        dim[1:4] = rng.integers(2**20, 2**62, 3)
        return perhaps_packed(pack(array, kind=nib.Nifti2Header, dim=dim), rng)
    return perhaps_packed(pack(array, dim=[3, *rng.integers(2000, 32767, 3), 1, 1, 1, 1]), rng)


def offsets(array: np.ndarray, rng: Generator) -> bytes:
    values = [np.nan, np.inf, -np.inf, -352, 0, 1, 100, 351, 352.5, 353, 368, 1e4, 1e9, 1e30, 3e38]
    return pack(array, vox_offset=rng.choice(values)) + bytes(int(rng.choice([0, 1, 16, 20000])))


PARTS = ("ct", "lung", "infection")
# name: how many, of which parts, how they end, and how they are made
FAMILIES = {
    "good": (10, PARTS, "read", lambda a, rng: perhaps_packed(pack(a), rng)),
    "cut_gzip": (90, PARTS, "refused", lambda a, rng: cut(gzip.compress(pack(a), rng.integers(10)), rng)),
    "cut_plain": (60, PARTS, "refused", lambda a, rng: cut(pack(a), rng)),
    "gzip_bytes": (130, PARTS, "both", flip_packed),
    "plain_bytes": (110, PARTS, "both", lambda a, rng: flip(pack(a), rng)),
    "header_bytes": (200, PARTS, "both", header_bytes),
    "junk": (40, PARTS, "both", junk),
    "axes": (70, PARTS, "both", axes),
    "not_finite": (30, ("ct",), "refused",
                   lambda a, rng: strange_value(a, rng, values=(np.nan, np.inf, -np.inf))),
    "float_masks": (50, ("lung", "infection"), "both",
                    lambda a, rng: strange_value(a, rng, values=(0, 1, 2, 3, 0.5, -1, 4, 255, 1.0001, np.nan,
                                                                 np.inf, 1e30))),
    "affines": (60, PARTS, "read", affines),
    "scaling": (70, ("ct", *PARTS), "both",
                lambda a, rng: pack(a, scl_slope=rng.choice(ODD), scl_inter=rng.choice(ODD))),
    "types": (70, PARTS, "both", types),
    "huge": (50, PARTS, "refused", huge),
    "offsets": (50, PARTS, "both", offsets),
    "headers_only": (10, PARTS, "refused",
                     lambda a, rng: perhaps_packed(pack(a)[: rng.choice([348, 352])], rng)),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_malformed_file_ends_in_an_error_or_in_the_right_voxels(family, tmp_path):
    count, parts, ending, make = FAMILIES[family]
    path, scratch, ends = tmp_path / "scan.nii", tmp_path / "scratch", []
    scratch.mkdir()
    for number in range(count):
        rng = np.random.default_rng([zlib.crc32(family.encode()), number])
        part = str(rng.choice(parts))
        top = LABELS.get(part, 1500)
        array = rng.integers(0 if part in LABELS else -1100, top + 1, (SIDE, SIDE, DEPTH))
        data = make(array.astype(np.uint8 if part in LABELS else np.int16), rng)
        path.write_bytes(data)
        wanted, case = parse(data, part), f"{family} {number}, {part}"
        handles = open_files()
        for folder in (scratch, None):
            if wanted is None:
                with pytest.raises(ValueError) as caught:
                    read(path, part, folder)
                    pytest.fail(f"{case}: read, though it is none")
                assert str(path) in str(caught.value), case
            else:
                np.testing.assert_allclose(read(path, part, folder), wanted, rtol=1e-6, err_msg=case)
            assert open_files() == handles, f"{case}: a file was left open"
        assert not list(scratch.iterdir())
        ends.append(wanted is not None)
    assert {"read": all(ends), "refused": not any(ends), "both": 3 <= sum(ends) <= count - 3}[ending]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


ZEROS = np.zeros((SIDE, SIDE, DEPTH), np.int16)


def with_value(value: float) -> np.ndarray:
    array = ZEROS.astype(np.float32)
    array[3, 3, 3] = value
    return array


@pytest.mark.parametrize(
    ("data", "part", "words"),
    [
        (pack(np.stack([ZEROS, ZEROS], -1)), "ct", r"shape \(12, 12, 4, 2\); expected 3 dim"),
        (pack(ZEROS[..., None, None]), "ct", r"shape \(12, 12, 4, 1, 1\); expected 3 dim"),
        (pack(ZEROS[..., 0]), "ct", r"shape \(12, 12\); expected 3 dim"),
        (pack(ZEROS.astype(np.complex64)), "ct", "type complex64; expected integers or real"),
        (b"<html>404", "ct", "<html>.*no NIfTI"),
        (gzip.compress(pack(ZEROS), mtime=0)[:60], "ct", "cannot be read.*fetch it again"),
        (pack(ZEROS)[:-1], "ct", "cannot be read.*fetch it again"),
        (b"", "ct", "cannot be read.*fetch it again"),
        (pack(with_value(np.nan)), "ct", "slice 3 holds NaN or infinite"),
        (pack(with_value(3)), "lung", r"slice 3 holds the values \[3.0\]; expected only 0, 1, 2"),
        (pack(with_value(0.5)), "infection", r"values \[0.5\]; expected only 0, 1, 2, 3;"),
    ],
)
def test_the_error_says_what_is_wrong(data, part, words, tmp_path):
    (tmp_path / "scan.nii").write_bytes(data)
    with pytest.raises(ValueError, match=f"scan.nii: .*{words}"):
        read(tmp_path / "scan.nii", part, tmp_path)


def test_a_fourth_axis_of_one_and_bytes_beyond_the_end_are_noted(tmp_path):
    (tmp_path / "scan.nii").write_bytes(pack(ZEROS[..., None]) + b"xy")
    with Volume(tmp_path / "scan.nii") as volume:
        assert volume.shape == (SIDE, SIDE, DEPTH)
        assert volume.notes == ["scan.nii: 4 dimensions, the last of length 1, taken as 3",
                                "scan.nii: 2 bytes beyond the declared end ignored"]  # fmt: skip


@pytest.mark.parametrize("room", [True, False])
def test_a_checksum_right_behind_the_last_chunk_is_read_with_room_to_unpack_or_without(
    room, tmp_path, monkeypatch
):
    monkeypatch.setattr(nifti, "CHUNK", 16)  # the unpacked file has 352 + 1152 bytes, 94 chunks
    if not room:
        monkeypatch.setattr(nifti.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 28))
        monkeypatch.setattr(nifti.tempfile, "TemporaryFile", lambda **_: pytest.fail("unpacked"))
    packed = bytearray(gzip.compress(pack(ZEROS), compresslevel=0))
    path = tmp_path / "scan.nii"
    path.write_bytes(packed)
    assert np.array_equal(read(path, "ct", tmp_path), ZEROS)
    packed[-6] ^= 1
    path.write_bytes(packed)
    with pytest.raises(ValueError, match="CRC"):
        read(path, "ct", tmp_path)


def test_declared_sizes_are_not_allocated(tmp_path):
    giant = pack(ZEROS, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    deep = pack(ZEROS, kind=nib.Nifti2Header, dim=[3, 12, 12, 2**45, 1, 1, 1, 1])
    tracemalloc.start()
    try:
        for data in (giant, deep, *map(gzip.compress, (giant, deep, giant + bytes(8 << 20)))):
            (tmp_path / "scan.nii").write_bytes(data)
            with pytest.raises(ValueError, match="scan.nii"):
                read(tmp_path / "scan.nii", "ct", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = tmp_path / "scan.nii"
    path.write_bytes(pack(ZEROS))
    path.chmod(0)
    with pytest.raises(ValueError, match=f"{path}: cannot be read .Permission denied"):
        read(path, "ct", None)
