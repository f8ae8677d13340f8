"""A store says how it was made and of what, and what was left out; records and sidecars repeat that."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from replication.cli import main
from replication.data.phantom.volumes import make_volume, write_phantoms
from replication.data.slices.origin import KNOWN, read_origin
from replication.data.slices.store import read_store


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scan of a lab's own, with slices without lung and without infection."""
    folder, volume = (
        tmp_path_factory.mktemp("own"),
        make_volume(name="coronacases_001", seed=0, size=48, depth=16),
    )
    for part in ("ct", "lung", "infection"):
        (folder / part).mkdir()
        voxels = getattr(volume, part).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([-6.0, 6, 16, 1])), folder / part / "a.nii.gz")
    return folder


def fuse(volumes: Path, store: Path, *options: str) -> None:
    assert main(["data", "fuse", str(volumes), str(store), "--size", "32", "--quiet", *options]) == 0


def test_what_is_left_out_is_told_and_kept_on_demand(volumes, tmp_path, capsys):
    """`minmax-clahe` chooses slices; with --all-slices it leaves out what `window` does."""
    fuse(volumes, tmp_path / "chosen", "--preparation", "minmax-clahe")
    told = capsys.readouterr().out
    assert (
        "outside the middle 60 %" in told and "--all-slices, into another folder, keeps all with lung" in told
    )
    fuse(volumes, tmp_path / "all", "--preparation", "minmax-clahe", "--all-slices")
    fuse(volumes, tmp_path / "window")
    assert "middle" not in capsys.readouterr().out
    stores = {
        name: read_store(tmp_path / name, size=32, progress=False) for name in ("chosen", "all", "window")
    }
    assert list(stores["all"].table["slice_id"]) == list(stores["window"].table["slice_id"])
    assert 0 < len(stores["chosen"]) < len(stores["all"]) and not stores["all"].infection.any((1, 2)).all()
    chosen = dict(zip(stores["all"].table["slice_id"], stores["all"].ct))
    assert all(
        np.array_equal(chosen[i], ct)
        for i, ct in zip(stores["chosen"].table["slice_id"], stores["chosen"].ct)
    )


def test_a_name_and_terms_are_given_now_or_later_and_stay(volumes, tmp_path):
    store = tmp_path / "store"
    fuse(volumes, store)
    origin = read_origin(store, "")
    assert (origin.preparation, origin.window, origin.size, origin.public) == (
        "window",
        [-1250.0, 250.0],
        32,
        False,
    )
    assert "given no name: terms not stated" in origin.licence
    before = (store / "slices.csv").stat().st_mtime_ns
    fuse(volumes, store, "--name", "Ward 7", "--licence", "not to be passed on")
    fuse(volumes, store)  # what is not given stays
    assert read_origin(store, "").licence == "Trained on Ward 7: not to be passed on. Not for clinical use."
    assert (store / "slices.csv").stat().st_mtime_ns == before, "a name is no reason to fuse again"


def test_drawn_volumes_are_known_as_such_under_whatever_name(tmp_path):
    write_phantoms(tmp_path / "volumes", volumes=["coronacases_001"], depth=8, size=48)
    for options in ([], ["--published"]):
        store = tmp_path / f"store{len(options)}"
        fuse(tmp_path / "volumes", store, *options)
        origin = read_origin(store, "")
        assert origin.scans == "1 drawn volume (chs-net data phantom)" and origin.public
        # An older store does not say whether its volumes were drawn: nothing is claimed of whose they are.
        told = json.loads((store / "store.json").read_text())
        told["volumes"]["coronacases_001"].pop("drawn")
        (store / "store.json").write_text(json.dumps(told))
        assert "Ma et al" not in read_origin(store, "").licence


def test_the_prepared_real_slices_are_known_by_their_fingerprint_and_others_are_not(tiny_store, tmp_path):
    (known,) = KNOWN
    assert (
        read_origin(tmp_path, known).preparation == "minmax-clahe"
        and read_origin(tmp_path, "another") is None
    )
    assert read_store(tiny_store, size=64, progress=False).origin.scans == "drawn slices"
