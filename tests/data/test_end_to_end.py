"""From the sources' archives to a store that training reads: download, fuse, check, train.

The archives hold synthetic volumes under the publishers' member names: all 20 of Zenodo, all 9 of
MedSeg, the latter second annotations of nine Radiopaedia scans, as they very probably are.
"""

import gzip
import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
from served import MEDSEG, ZENODO, zipped

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


def archives() -> dict[str, bytes]:
    """The six archives, by name."""
    names = (*SOURCES["zenodo"].depths, *TWINS)
    volumes = {name: phantom.make_volume(name=name, seed=3, size=SIDE, depth=DEPTH) for name in names}
    made = {}
    for archive, part in {**ZENODO, **MEDSEG}.items():
        members = {}
        for name, volume in volumes.items():
            if name.startswith("medseg_") == (archive in MEDSEG):
                member = f"{archive[:-4]}/{name[7:]}" if archive in MEDSEG else name
                image = nib.Nifti1Image(getattr(volume, part), volume.affine)
                members[f"{member}.nii.gz"] = gzip.compress(image.to_bytes(), mtime=0)
        made[archive] = zipped(members)
    return made


def test_the_archives_end_in_the_right_store_and_training_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom, "TWINS", TWINS)
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    served = archives()
    for name, content in served.items():
        (tmp_path / name).write_bytes(content)
    for key, source in SOURCES.items():
        kept = tuple(
            replace(a, sha256=a.sha256 and hashlib.sha256(served[a.name]).hexdigest())
            for a in source.archives if a.name in served
        )  # fmt: skip
        small = replace(source, archives=kept, depths=dict.fromkeys(source.depths, DEPTH))
        monkeypatch.setitem(SOURCES, key, replace(small, slices=DEPTH * len(small.depths)))
    told = download(tmp_path / "data", offline=True, local=[tmp_path])
    assert told["datasets"] == {
        "zenodo": {"volumes": 20, "slices": 20 * DEPTH}, "medseg": {"volumes": 9, "slices": 9 * DEPTH},
    }  # fmt: skip
    store = tmp_path / "slices"
    fused = fuse(told["volumes"], store, size=SIDE, workers=2, progress=False, published=True)
    assert len(fused["volumes"]) == 29 and fused["slices_in"] == 29 * DEPTH
    assert fused["duplicates"] == TWINS  # all of them and nothing else
    assert check_store(store) == [] and main(["data", "check", str(store), "--quiet"]) == 0
    anatomy = {v["orientation"]["anatomy"] for v in fused["volumes"].values()}
    assert anatomy <= {"upright", "upside down", "undecided"}

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
        split = make_split(read.table, protocol="patient", fold=fold, seed=0)
        assert leaks(read.table, split)["slices"]["any"] == 0

    record = train.train_run("table2-lungs-patient-fold0", profile="tiny", slices=store,
                             results=tmp_path / "results", runs=tmp_path / "runs", progress=False)  # fmt: skip
    assert record["data"]["slices"] == fused["slices_out"]
    assert record["data"]["patients"] == 19  # 29 volumes, 9 of them copies, one patient scanned twice
