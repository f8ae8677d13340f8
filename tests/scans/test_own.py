"""Fusion of scans of one's own: any name, header and label; patients by folder or table; the same slices however stored."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from chest import CASES, EVERY_WAY, WITH_CASES, Drawn, stored, write_dicom

from replication.cli import main
from replication.data.fusing.fusion import fuse
from replication.data.phantom.volumes import make_volume
from replication.data.reading.own import Own, read_patients
from replication.data.slices.splits import make_split
from replication.data.slices.store import check_store, read_table


def lay(folder: Path, drawn: Drawn, *, name: str = "scan", axes: str = "LAS", **changed: np.ndarray) -> Path:
    """The three files of one scan, stored in one way; `changed` replaces an array."""
    for part, array in (("ct", drawn.hu), ("lung", drawn.lung), ("infection", drawn.infection)):
        image = stored(changed.get(part, array), drawn.affine, axes)
        path = folder / part / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
    return folder


def pixels(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.png"))}


@pytest.fixture(scope="module")
def reference(drawn, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("reference")
    fuse(lay(folder / "in", drawn), folder / "out", size=48, progress=False)
    assert len(pixels(folder / "out")) >= 3 * 6
    return pixels(folder / "out")


@pytest.mark.parametrize("axes", EVERY_WAY[::5])
def test_the_same_scan_gives_the_same_slices_however_it_is_stored(axes, drawn, reference, tmp_path):
    told = fuse(lay(tmp_path / "in", drawn, axes=axes), tmp_path / "out", size=48, progress=False)
    assert pixels(tmp_path / "out") == reference
    assert told["volumes"]["scan"]["orientation"]["because"] == "header"


@pytest.mark.parametrize("name", ["radiopaedia_7_85703_0", "Müller, Änne (Kopie 2)"])
def test_a_name_decides_nothing(name, drawn, reference, tmp_path):
    """A prefix once said that planes lie upside down; `segment` takes any name, and so does `fuse`."""
    fuse(lay(tmp_path / "in", drawn, name=name), tmp_path / "out", size=48, progress=False)
    assert list(pixels(tmp_path / "out").values()) == list(reference.values())
    assert set(read_table(tmp_path / "out")["source"]) == {"own"}


def test_masks_of_0_and_255_and_of_named_labels_count_as_they_are_told(drawn, reference, tmp_path):
    fuse(lay(tmp_path / "a", drawn, lung=(drawn.lung > 0) * np.uint8(255), infection=drawn.infection * np.uint8(255)),
         tmp_path / "a_out", size=48, progress=False)  # fmt: skip
    assert pixels(tmp_path / "a_out") == reference
    lobes = np.where(drawn.lung > 0, 10 + np.arange(drawn.lung.shape[1])[None, :, None] % 5, 0).astype(
        np.uint8
    )
    folder = lay(tmp_path / "b", drawn, lung=lobes)
    with pytest.raises(ValueError, match=r"holds the labels \[0.*\]; expected 0 to 2.*--lung-labels"):
        fuse(folder, tmp_path / "refused", size=48, progress=False)
    command = ["data", "fuse", str(folder), str(tmp_path / "b_out"), "--size", "48", "--quiet"]
    assert main([*command, "--lung-labels", "10-12,13,14"]) == 0
    assert pixels(tmp_path / "b_out") == reference


def test_a_patient_is_a_folder_or_a_line_of_a_table(drawn, tmp_path):
    for name in ("anna/first", "anna/second", "bert/only", "loose"):
        lay(tmp_path / "in", drawn, name=name)
    fuse(tmp_path / "in", tmp_path / "by_folder", size=48, progress=False)
    table = read_table(tmp_path / "by_folder")
    assert dict(zip(table["volume"], table["patient"])) == {
        "anna-first": "anna", "anna-second": "anna", "bert-only": "bert", "loose": "loose",
    }  # fmt: skip
    lines = "scan,patient\nanna-first,P1\nsecond,P2\nonly,P1\nloose,P3\n"
    (tmp_path / "patients.csv").write_text(lines)
    own = Own(patients=str(tmp_path / "patients.csv"))
    fuse(tmp_path / "in", tmp_path / "by_table", size=48, progress=False, own=own)
    table = read_table(tmp_path / "by_table")
    assert table.groupby("patient")["volume"].unique().map(set).to_dict() == {
        "P1": {"anna-first", "bert-only"}, "P2": {"anna-second"}, "P3": {"loose"},
    }  # fmt: skip
    assert not check_store(tmp_path / "by_table")
    (tmp_path / "patients.csv").write_text(lines.replace("loose,P3\n", ""))
    with pytest.raises(ValueError, match="table of patients does not name it; add a line loose,PATIENT"):
        fuse(tmp_path / "in", tmp_path / "less", size=48, progress=False, own=own)


@pytest.mark.parametrize(
    "text, said",
    [
        ("name,who\na,b\n", "expected scan and patient"),
        ("scan,patient\na,\n", "line 2.*expected each scan once"),
        ("scan,patient\na,1\na,2\n", "line 3"),
    ],
)
def test_a_table_of_patients_that_cannot_be_one_is_refused(text, said, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_patients(tmp_path / "p.csv")


def test_a_dicom_folder_may_stand_where_a_scan_does(drawn, reference, tmp_path):
    lay(tmp_path / "in", drawn)
    (tmp_path / "in" / "ct" / "scan.nii.gz").unlink()
    write_dicom(tmp_path / "in" / "ct" / "scan", drawn.hu, drawn.affine)
    fuse(tmp_path / "in", tmp_path / "out", size=48, progress=False)
    assert pixels(tmp_path / "out") == reference


def test_a_mask_that_lies_elsewhere_or_has_another_shape_is_refused(drawn, tmp_path):
    folder = lay(tmp_path / "a", drawn)
    nib.save(nib.Nifti1Image(drawn.lung, drawn.affine + np.eye(4, k=3) * 30), folder / "lung" / "scan.nii.gz")
    with pytest.raises(ValueError, match="puts it elsewhere than.*copy the scan's header"):
        fuse(folder, tmp_path / "out", size=48, progress=False)
    nib.save(nib.Nifti1Image(drawn.lung[:-1], drawn.affine), folder / "lung" / "scan.nii.gz")
    with pytest.raises(ValueError, match="shape .* but .* has"):
        fuse(folder, tmp_path / "out", size=48, progress=False)
    (folder / "lung" / "scan.nii.gz").unlink()
    with pytest.raises(ValueError, match="scan: the lung mask .*lung/scan.nii.gz is missing"):
        fuse(folder, tmp_path / "out", size=48, progress=False)


def test_what_is_in_doubt_is_said_on_the_terminal_and_strict_refuses_it(drawn, tmp_path, capsys):
    raw = np.clip(drawn.hu.astype(int) + 1024, 0, 4095).astype(np.uint16)
    folder = lay(tmp_path / "in", drawn, ct=raw)
    assert main(["data", "fuse", str(folder), str(tmp_path / "out"), "--size", "48", "--quiet"]) == 0
    assert "warning: scan: values of" in capsys.readouterr().err
    assert (
        main(["data", "fuse", str(folder), str(tmp_path / "no"), "--size", "48", "--quiet", "--strict"]) == 1
    )
    assert "warnings are errors here" in capsys.readouterr().err
    assert main(["data", "fuse", str(folder), str(tmp_path / "no"), "--published", "--strict"]) == 1
    assert "--published goes with none of" in capsys.readouterr().err


def test_own_scans_split_by_patient_and_are_remembered_by_their_options(drawn, tmp_path):
    for k in range(6):
        other = make_volume(name="coronacases_001", seed=20 + k, size=48, depth=8)
        image = Drawn(other.ct.astype(np.int16), other.lung, other.infection, drawn.affine)
        lay(tmp_path / "in", image, name=f"p{k}/scan")
    fuse(tmp_path / "in", tmp_path / "out", size=48, progress=False)
    table: pd.DataFrame = read_table(tmp_path / "out")
    split = make_split(table, protocol="patient", fold=0, seed=0)
    assert not set(table["patient"].iloc[split.test]) & set(table["patient"].iloc[split.train])
    assert (
        json.loads((tmp_path / "out" / ".fusion" / "settings.json").read_text())["own"]["intensity"] == "auto"
    )
    with pytest.raises(ValueError, match="this store was begun with"):
        fuse(tmp_path / "in", tmp_path / "out", size=48, progress=False, own=Own(axes="LAS"))


@WITH_CASES
def test_the_small_ct_fuses_to_one_store_however_it_is_stored(tmp_path):
    stores = {}
    for case in ("RAS", "LPS", "LAS", "PSR", "masks_0_255", "lobe_labels", "no_offset"):
        own = Own(lung_labels=tuple(range(10, 15)) if case == "lobe_labels" else None)
        fuse(CASES / case, tmp_path / case, size=128, progress=False, own=own)
        stores[case] = pixels(tmp_path / case)
    assert all(store == stores["RAS"] for store in stores.values())
