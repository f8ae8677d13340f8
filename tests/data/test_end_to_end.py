"""From a server that misbehaves to a store that training reads: download, fuse, check, train.

The archives hold synthetic volumes under the publishers' member names: all 20 of Zenodo, all 9 of
MedSeg, the latter second annotations of nine Radiopaedia scans, as they very probably are.
"""

import gzip
import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from served import (
    MEDSEG,
    ZENODO,
    another,
    breaks,
    once,
    page,
    serving,
    shorter,
    unavailable,
    zipped,
)

from replication.cli import main
from replication.data.fusing.fusion import fuse
from replication.data.getting.download import download
from replication.data.getting.sources import SOURCES
from replication.data.phantom import volumes as phantom
from replication.data.slices.splits import leaks, make_split
from replication.data.slices.store import check_store, read_store
from replication.training import run as train
from replication.training.profiles import PROFILES, Profile

DEPTH, SIDE = 8, 64
RADIOPAEDIA = [v for v in SOURCES["zenodo"].depths if v.startswith("radiopaedia")]
ORIGINALS = [v for v in RADIOPAEDIA if v != "radiopaedia_14_85914_0"]
TWINS = {f"medseg_{k}": original for k, original in enumerate(ORIGINALS, 1)}
TINY = Profile(name="tiny", size=32, widths=(4, 6, 9), batch_size=8, max_epochs={"lungs": 1, "infection": 1},
               worth="nothing")  # fmt: skip


@pytest.fixture(scope="module")
def served() -> dict[str, bytes]:
    """The six archives, by name."""
    volumes = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "TWINS", TWINS)
        for name in (*SOURCES["zenodo"].depths, *TWINS):
            volumes[name] = phantom.make_volume(name=name, seed=3, size=SIDE, depth=DEPTH)
    assert len(volumes) == 29
    archives = {}
    for archive, part in {**ZENODO, **MEDSEG}.items():
        members = {}
        for name, volume in volumes.items():
            if name.startswith("medseg_") == (archive in MEDSEG):
                member = f"{archive[:-4]}/{name[7:]}" if archive in MEDSEG else name
                image = nib.Nifti1Image(getattr(volume, part), volume.affine)
                members[f"{member}.nii.gz"] = gzip.compress(image.to_bytes(), mtime=0)
        archives[archive] = zipped(members)
    return archives


@pytest.fixture
def server(served, monkeypatch, waits):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(served) as running:
        yield running


@pytest.fixture
def fetch(server, served, tmp_path):
    def sources():
        for key, source in SOURCES.items():
            kept = tuple(
                replace(a, sha256=a.sha256 and hashlib.sha256(served[a.name]).hexdigest())
                for a in source.archives if a.name in served
            )  # fmt: skip
            depths = dict.fromkeys(source.depths, DEPTH)
            yield key, replace(source, archives=kept, depths=depths, slices=DEPTH * len(depths))

    def run():
        return download(
            tmp_path / "data", sources=dict(sources()), base_urls=dict.fromkeys(SOURCES, server.url),
            tries=3, timeout=5, progress=False,
        )  # fmt: skip

    return run


def test_a_server_with_moods_ends_in_the_right_store_and_training_reads_it(server, fetch, tmp_path, capsys):
    server.manners |= {
        "COVID-19-CT-Seg_20cases.zip": once(breaks), "Lung_Mask.zip": once(unavailable, 2),
        "Infection_Mask.zip": once(shorter), "rp_im.zip": once(another), "rp_msk.zip": once(page),
    }  # fmt: skip
    told = fetch()
    assert told["datasets"] == {
        "zenodo": {"volumes": 20, "slices": 20 * DEPTH}, "medseg": {"volumes": 9, "slices": 9 * DEPTH},
    }  # fmt: skip
    store = tmp_path / "slices"
    fused = fuse(told["volumes"], store, size=SIDE, workers=2, progress=False, published=True)
    assert len(fused["volumes"]) == 29 and fused["slices_in"] == 29 * DEPTH
    assert fused["duplicates"] == TWINS  # all of them and nothing else
    assert check_store(store) == [] and main(["data", "check", str(store), "--quiet"]) == 0
    assert {v["orientation"]["anatomy"] for v in fused["volumes"].values()} <= {
        "upright", "upside down", "undecided",
    }  # fmt: skip

    read = read_store(store, size=SIDE, progress=False)
    for twin, original in TWINS.items():  # the same scan, the same way up, the same height
        mine = read.table.index[read.table["volume"] == twin]
        theirs = [read.table.index[read.table["slice_id"] == d][0] for d in read.table["duplicate_of"][mine]]
        assert {read.table["volume"][k] for k in theirs} == {original}
        pairs = zip(read.ct[mine].astype(float), read.ct[theirs].astype(float), strict=True)
        assert min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs) > 0.9
    split = make_split(read.table, protocol="slice", fold=0, seed=0)
    assert leaks(read.table, split)["slices"]["duplicate"] > 0
    for fold in range(5):
        assert (
            leaks(read.table, make_split(read.table, protocol="patient", fold=fold, seed=0))["slices"]["any"]
            == 0
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "tiny", TINY)
        record = train.train_run("table2-lungs-patient-fold0", profile="tiny", slices=store,
                                 results=tmp_path / "results", runs=tmp_path / "runs", progress=False)  # fmt: skip
    assert record["data"]["slices"] == fused["slices_out"]
    assert record["data"]["patients"] == 19  # 29 volumes, 9 of them copies, one patient scanned twice


@pytest.mark.parametrize(
    "manner, said", [(lambda h, c, n: h.answer(404, b""), "404"), (another, "checksum"), (unavailable, "503")]
)
def test_what_cannot_be_had_ends_in_an_error_and_no_store_and_is_mended_later(
    server, fetch, tmp_path, manner, said
):
    server.manners["Lung_Mask.zip"] = manner
    with pytest.raises(FileNotFoundError, match=rf"(?s)Lung_Mask\.zip.*{said}.*by hand"):
        fetch()
    with pytest.raises(ValueError, match="lung mask.*missing"):
        fuse(tmp_path / "data/volumes", tmp_path / "slices", size=SIDE, progress=False, published=True)
    assert not (tmp_path / "slices/slices.csv").exists()
    server.manners.clear()
    told = fetch()
    assert told["fetched"] == ["Lung_Mask.zip"]  # the rest stood
    assert len(list((tmp_path / "data/volumes/lung").iterdir())) == 29
