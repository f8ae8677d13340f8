"""The page "Try it" in Chromium, from the drop of a file to its masks: those of `chs-net segment`, and nothing leaves."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Page
from test_pages import LOOK, View, axe, browser, site, views  # noqa: F401  (fixtures)

from replication.data.phantom.volumes import make_volume
from replication.scans.output import write_segmentation
from replication.scans.steps import Cleaning
from replication.scans.weights import load_cascade

MASKS = ("lungs", "infection")
PATIENCE = 400_000  # milliseconds, on a busy machine
HARD = {
    "four.nii.gz": "split a series into volumes",
    "labels.nii": "a label map",
    "notes.txt": "reads NIfTI files",
}


@pytest.fixture
def page(views: dict[str, View], built: Path) -> Page:  # noqa: F811
    """The page at the width of a phone."""
    if not (built / "_static/try/runtime").is_dir():
        pytest.skip("the book was built without npm, and the page is a picture")
    return views["400 dark"].open("book/try.html")


def told(page: Page, *, busy: bool = False) -> str:
    """What the page says once it is at rest."""
    page.wait_for_function(
        "() => !document.querySelector('#try.busy') && !/Opening/.test(document.querySelector('.told').textContent)",
        timeout=PATIENCE,
    )
    return page.inner_text("#try .told")


def test_masks_are_those_of_the_command_and_nothing_leaves(page: Page, views, tmp_path: Path) -> None:  # noqa: F811
    drawn = make_volume(name="coronacases_001", seed=100, size=128, depth=6)
    scan = tmp_path / "scan.nii.gz"
    nib.save(
        nib.Nifti1Image(drawn.ct, drawn.affine).as_reoriented(np.array([[0, -1], [1, 1], [2, -1]])), scan
    )
    report = write_segmentation(scan, tmp_path / "ours", cascade=load_cascade(), cleaning=Cleaning())

    page.set_input_files("#try [data-part=file]", scan)
    assert "ready" in told(page)
    page.focus("#try [data-part=slice]")
    before = page.inner_text("#try .moves output")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#try .moves output") != before
    page.focus("#try [data-part=run]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#try [data-part=stop]", timeout=PATIENCE)
    assert told(page).startswith("Done: stored as RAI"), told(page)

    for name in MASKS:
        with page.expect_download() as download:
            page.click(f"#try a[data-part={name}]")
        download.value.save_as(tmp_path / f"{name}.nii.gz")
        found, ours = nib.load(tmp_path / f"{name}.nii.gz"), nib.load(tmp_path / "ours" / f"{name}.nii.gz")
        np.testing.assert_array_equal(found.affine, ours.affine)
        a, b = (np.asanyarray(image.dataobj) > 0 for image in (found, ours))
        assert 2 * (a & b).sum() > 0.999 * (a.sum() + b.sum()) > 0, name
    both = page.inner_text("#try tbody tr:first-child").split()
    assert [int(v) for v in both[1:3]] == [round(report["found"][f"{name}_ml"]) for name in MASKS]
    assert page.locator("#try [data-part=warnings] li").all_inner_texts() == report["warnings"]
    assert page.evaluate(LOOK) + axe(page) == []
    assert [t for t in views["400 dark"].troubles if "GL Driver Message" not in t] == []
    blocked = page.evaluate("() => fetch('https://example.org/').then(() => 'sent', (error) => `${error}`)")
    assert blocked != "sent"


def test_what_is_no_scan_gets_a_line_and_a_run_can_be_stopped(page: Page, tmp_path: Path) -> None:
    hu = np.random.default_rng(0).normal(0, 400, (40, 40, 6)).clip(-1000, 1000).astype(np.int16)
    nib.save(nib.Nifti1Image(np.stack([hu, hu], 3), np.eye(4)), tmp_path / "four.nii.gz")
    nib.save(nib.Nifti1Image((hu > 0).astype(np.uint8), np.eye(4)), tmp_path / "labels.nii")
    (tmp_path / "notes.txt").write_text("no scan")
    for name, words in HARD.items():
        page.set_input_files("#try [data-part=file]", tmp_path / name)
        said = told(page)
        if "ready" in said:
            page.click("#try [data-part=run]")
            said = told(page)
        assert words in said and page.locator("#try .told.wrong").count(), (name, said)
    nib.save(nib.Nifti1Image(hu, np.diag([3, 3, 5, 1])), tmp_path / "chest.nii")
    page.set_input_files("#try [data-part=file]", tmp_path / "chest.nii")
    told(page)
    page.click("#try [data-part=run]")
    page.click("#try [data-part=stop]")
    assert told(page) == "Stopped."
