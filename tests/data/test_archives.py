"""Checksums, and archives that mean harm."""

import io
import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
from served import (
    CT,
    LUNG,
    SERVED,
    ZENODO,
    assert_all_there,
    content_of,
    members_of,
    nifti,
    sum_of,
    zipped,
)

from replication.data.getting import archives


def test_a_sum_recorded_on_first_use_is_kept_to(server, get, tmp_path) -> None:
    get()
    data = tmp_path / "data"
    shutil.rmtree(data / "volumes")
    (data / "archives/rp_im.zip").unlink()
    changed = members_of("rp_im.zip") | {"rp_im/9.nii.gz": nifti(999)}
    server.content["rp_im.zip"] = zipped(changed)
    old, new = sum_of(SERVED["rp_im.zip"]), sum_of(server.content["rp_im.zip"])
    with pytest.raises(FileNotFoundError, match=f"expected sha256 {old}, got {new}") as caught:
        get()
    assert f'checksums={{"rp_im.zip": "{new}"}}' in str(caught.value)
    assert not (data / "volumes/ct/medseg_9.nii.gz").exists()
    # The two ways that the message names: accept the sum, here with the file that was kept.
    os.replace(data / "archives/rp_im.zip.wrong", data / "archives/rp_im.zip")
    assert get(offline=True, checksums={"rp_im.zip": new})["unpacked"] == ["rp_im.zip"]
    assert (data / "volumes/ct/medseg_9.nii.gz").read_bytes() == changed["rp_im/9.nii.gz"]
    assert json.loads((data / "archives/checksums.json").read_text())["rp_im.zip"] == new
    assert get(offline=True)["unpacked"] == []


def test_an_accepted_sum_replaces_a_declared_one_for_good(server, get, tmp_path) -> None:
    get()
    changed = members_of(LUNG) | {"coronacases_001.nii.gz": nifti(998)}
    server.content[LUNG] = zipped(changed)
    assert get(checksums={LUNG: sum_of(server.content[LUNG]).upper()})["unpacked"] == [LUNG]
    place = tmp_path / "data/volumes/lung/coronacases_001.nii.gz"
    assert place.read_bytes() == changed["coronacases_001.nii.gz"]
    assert get()["unpacked"] == []


def test_a_wrong_file_put_there_by_hand_is_set_aside(server, get, tmp_path) -> None:
    place = tmp_path / "data/archives" / LUNG
    place.parent.mkdir(parents=True)
    place.write_bytes(zipped({"coronacases_001.nii.gz": b"wrong"}))
    with pytest.raises(FileNotFoundError, match="wrong checksum"):
        get(offline=True)
    assert place.exists()
    get()
    assert_all_there(tmp_path / "data")


def test_a_changed_volume_is_unpacked_again_a_copied_folder_not(get, tmp_path) -> None:
    get()
    volumes = tmp_path / "data/volumes"
    for path in volumes.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    assert get()["unpacked"] == []
    (volumes / "ct/coronacases_001.nii.gz").write_bytes(b"cut short")
    same_size = bytearray((volumes / "ct/coronacases_002.nii.gz").read_bytes())
    same_size[-20] ^= 1
    (volumes / "ct/coronacases_002.nii.gz").write_bytes(same_size)
    (volumes / "infection/medseg_3.nii.gz").unlink()
    assert get(offline=True)["unpacked"] == [CT, "rp_msk.zip"]
    assert_all_there(tmp_path / "data")


# ---- archives that mean harm -----------------------------------------------------------------------
def flagged(content: bytes) -> bytes:
    """The same archive with every member marked as encrypted."""
    content = bytearray(content)
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for found in re.finditer(re.escape(magic), bytes(content)):
            content[found.start() + offset] |= 1
    return bytes(content)


def altered(content: bytes, where: bytes, offset: int) -> bytes:
    content = bytearray(content)
    content[content.rindex(where) + offset] ^= 0xFF
    return bytes(content)


def claiming(size: int, content: bytes) -> bytes:
    """The same archive whose largest member claims another size."""
    largest = max(zipfile.ZipFile(io.BytesIO(content)).infolist(), key=lambda m: m.file_size).file_size
    return content.replace(largest.to_bytes(4, "little"), size.to_bytes(4, "little"))


GOOD = members_of("rp_im.zip")
BOMB = zipped(GOOD | {"rp_im/1.nii.gz": bytes(30 * 2**20)})
HARM = {
    "bomb": (BOMB, "zip bomb"),
    "bombs together": (zipped(GOOD | {f"rp_im/{k}.nii.gz": bytes(5 * 2**20) for k in range(1, 9)}), "zip bomb"),
    "bomb that claims to be small": (claiming(10, BOMB), "damaged"),
    "encrypted": (flagged(SERVED["rp_im.zip"]), "encrypted"),
    "no directory": (SERVED["rp_im.zip"][:-40], "not a zip"),
    "damaged directory": (altered(SERVED["rp_im.zip"], b"PK\1\2", 1), "damaged"),
    "damaged directory entry": (altered(SERVED["rp_im.zip"], b"PK\1\2", 42), "damaged"),
    "damaged member": (altered(SERVED["rp_im.zip"], b"PK\3\4", 60), "damaged"),
    "damaged sum": (altered(altered(SERVED["rp_im.zip"], b"PK\3\4", 14), b"PK\1\2", 16), "damaged"),
    "twice": (zipped([*GOOD.items(), ("1.nii.gz", b"x")]), "twice"),
    "one too few": (zipped(dict(list(GOOD.items())[:-1])), "lacks 1 of 9 volumes .ct/medseg_9"),
    "a folder too deep": (zipped({f"a/{k}": v for k, v in GOOD.items()}), "lacks 9 of 9"),
    "out of its folder": (zipped({f"../{k}": v for k, v in GOOD.items()}), "lacks 9 of 9"),
    "nothing": (b"PK\5\6" + bytes(18), "lacks 9 of 9"),
}  # fmt: skip


@pytest.mark.parametrize("known", [False, True], ids=["no sum", "its sum"])
@pytest.mark.parametrize("harm", HARM)
def test_a_bad_archive_is_refused_and_leaves_everything_as_it_was(server, get, tmp_path, harm, known) -> None:
    data = tmp_path / "data"
    content, said = HARM[harm]
    place = data / "archives/rp_im.zip"
    before = {"ct/medseg_4.nii.gz": b"stood here before", "ct/own.nii.gz": b"own"}
    for name, kept in before.items():
        (data / "volumes" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "volumes" / name).write_bytes(kept)
    (data / "archives").mkdir(exist_ok=True)
    # The volume that stands is of a former archive: it would be replaced.
    note = {"archive": "rp_im.zip", "sha256": "0" * 64, "crc32": 0}
    (data / "archives/unpacked.json").write_text(json.dumps({"ct/medseg_4": note}))
    place.write_bytes(content)
    sums = {"rp_im.zip": sum_of(content)} if known else {}
    with pytest.raises(FileNotFoundError, match=said) as caught:
        get(datasets=("medseg",), offline=True, checksums=sums)
    assert str(caught.value).startswith("3 of 3 archives could not be had offline")
    assert content_of(data / "volumes") == before
    assert not (data / "archives/checksums.json").exists()
    # A second call, with the network, mends it.
    get(datasets=("medseg",))
    (data / "volumes/ct/own.nii.gz").unlink()
    assert_all_there(data, without=tuple(ZENODO))


def test_every_damage_is_an_error_or_harmless(tmp_path) -> None:
    """Bytes changed, cut and put in at random: the right files or BadArchive, and never half."""
    rng = np.random.default_rng(0)
    select = {"rp_im/1.nii.gz": "ct/1", "rp_im/2.nii.gz": "ct/2"}
    whole = zipped({name: GOOD[name] for name in select})
    archive, outcomes = tmp_path / "x.zip", set()
    for trial in range(150):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        if trial % 5 == 0:
            del content[rng.integers(len(content)) :]
        if trial % 3 == 0:  # the directory, where a byte says most
            content[-rng.integers(1, min(200, len(content)) + 1)] = rng.integers(256)
        archive.write_bytes(content)
        target = tmp_path / str(trial)
        try:
            archives.unpack(archive, target, select=select.get, expected=set(select.values()))
            assert content_of(target) == {f"ct/{k}.nii.gz": GOOD[f"rp_im/{k}.nii.gz"] for k in (1, 2)}
            outcomes.add("right")
        except archives.BadArchive:
            assert content_of(target) == {}
            outcomes.add("refused")
    assert outcomes == {"right", "refused"}


def test_litter_and_strangers_are_left_out_and_nothing_leaves_its_folder(server, get, tmp_path) -> None:
    """Volumes are written under our names; a killed run's rest goes."""
    link = zipfile.ZipInfo("here")
    link.external_attr = 0o120777 << 16
    litter = [
        ("__MACOSX/coronacases_001.nii.gz", b"x"), ("__MACOSX/._coronacases_001.nii.gz", b"x"), (".DS_Store", b"x"),
        ("README.txt", b"x"), ("coronacases_099.nii.gz", b"x"), ("1.nii.gz", b"x"), ("folder/", b""),
        ("../evil.nii.gz", b"x"), ("/evil.nii.gz", b"x"), ("..\\evil.nii", b"x"), (link, b"/etc/passwd"),
    ]  # fmt: skip
    server.content[LUNG] = zipped([*litter, *members_of(LUNG).items()])
    (tmp_path / "data/volumes/.unpacking/lung").mkdir(parents=True)
    get(checksums={LUNG: sum_of(server.content[LUNG])})
    assert_all_there(tmp_path / "data")
    assert {p.name for p in tmp_path.iterdir()} == {"data"}
