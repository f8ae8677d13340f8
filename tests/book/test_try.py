"""The page "Try it" in Chromium, from the drop of a file to its masks: those of `chs-net segment`, and nothing leaves."""

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route
from test_pages import LOOK, ROOT, View, axe, browser, site, views  # noqa: F401  (fixtures)

sys.path.append(str(ROOT / "tests/scans"))
from chest import write_dicom  # noqa: E402
from test_try_modules import onnx_eyes  # noqa: E402

from replication.data.phantom.volumes import make_volume  # noqa: E402
from replication.scans.output import write_segmentation  # noqa: E402
from replication.scans.steps import Cleaning  # noqa: E402
from replication.scans.weights import Cascade, load_cascade  # noqa: E402

MASKS = ("lungs", "infection")
SMALL_CT = Path(os.environ.get("CHS_CASES", "/nowhere")) / "small_ct.nii.gz"
PATIENCE = 400_000  # milliseconds, on a busy machine
SENDING = "\nfetch('https://example.org/', { mode: 'no-cors' }).catch(() => {});\n"
# A graphics card that can do nothing.
CARD = 'Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => ({ features: new Set() }) } });'
STALLED = "onmessage = () => { postMessage({ step: 'lungs', done: 0, left: 9 }); for (;;); };"


@pytest.fixture
def view(views: dict[str, View], built: Path) -> View:  # noqa: F811
    """The page at the width of a phone."""
    if not (built / "_static/try/runtime").is_dir():
        pytest.skip("the book was built without npm, and the page is a picture")
    views["400 dark"].open("book/try.html")
    return views["400 dark"]


def told(page: Page) -> str:
    """What the page says once it is at rest."""
    page.wait_for_function(
        "() => !document.querySelector('#try.busy') && !/Opening/.test(document.querySelector('.told').textContent)",
        timeout=PATIENCE,
    )
    return page.inner_text("#try [data-part=told]")


def script(route: Route, code: str) -> None:
    route.fulfill(body=code, content_type="text/javascript")


def give(page: Page, *paths: Path) -> str:
    page.set_input_files("#try [data-part=file]", paths)
    return told(page)


def run(page: Page, folder: Path) -> dict[str, nib.Nifti1Image]:
    """Both masks, as they are saved."""
    page.focus("#try [data-part=run]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#try [data-part=stop]", timeout=PATIENCE)
    assert told(page) == "Done."
    for name in MASKS:
        with page.expect_download() as download:
            page.click(f"#try a[data-part={name}]")
        download.value.save_as(folder / f"{name}.nii.gz")
    return {name: nib.load(folder / f"{name}.nii.gz") for name in MASKS}


def by_the_command(scan: Path, folder: Path, cascade: Cascade) -> tuple[dict, dict[str, nib.Nifti1Image]]:
    report = write_segmentation(scan, folder, cascade=cascade, cleaning=Cleaning())
    return report, {name: nib.load(folder / f"{name}.nii.gz") for name in MASKS}


def assert_alike(found: dict, ours: dict) -> None:
    """The same voxels, in the same place of the room; their order is the reader's."""
    for name in MASKS:
        a, b = (nib.as_closest_canonical(images[name]) for images in (found, ours))
        np.testing.assert_allclose(a.affine, b.affine, rtol=1e-5, atol=1e-2)
        a, b = (np.asanyarray(image.dataobj) > 0 for image in (a, b))
        assert 2 * (a & b).sum() > 0.999 * (a.sum() + b.sum()) > 0, name


def assert_told(page: Page, report: dict) -> None:
    both = page.inner_text("#try tbody tr:first-child").split()
    assert [int(v) for v in both[1:3]] == [round(report["found"][f"{name}_ml"]) for name in MASKS]
    assert page.locator("#try [data-part=warnings] li").all_inner_texts() == report["warnings"]


def test_masks_are_those_of_the_command_and_nothing_leaves(view: View, tmp_path: Path) -> None:
    page, drawn = view.page, make_volume(name="coronacases_001", seed=100, size=128, depth=6)
    scan = tmp_path / "scan.nii.gz"
    image = nib.Nifti1Image(np.ascontiguousarray(drawn.ct[:, :, 1:4]), drawn.affine)
    nib.save(image.as_reoriented(np.array([[0, -1], [1, 1], [2, -1]])), scan)
    report, ours = by_the_command(scan, tmp_path / "ours", load_cascade())
    page.evaluate("() => { document.querySelector('#try').dataset.most = 10000; }")  # voxels of a large scan
    assert "stored as RAI" in (said := give(page, scan)) and "one pixel of 3 x 3" in said
    page.focus("#try [data-part=slice]")
    before = page.inner_text("#try .moves output")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#try .moves output") != before
    assert_alike(found := run(page, tmp_path), ours)
    np.testing.assert_array_equal(found["lungs"].affine, ours["lungs"].affine)
    assert_told(page, report)
    assert page.evaluate(LOOK) + axe(page) == []
    assert [t for t in view.troubles if "GL Driver Message" not in t] == []


@pytest.mark.skipif(not SMALL_CT.is_file(), reason="CHS_CASES names no folder with the small CT")
def test_so_are_they_on_the_small_ct(view: View, tmp_path: Path) -> None:
    report, ours = by_the_command(SMALL_CT, tmp_path / "ours", load_cascade())
    give(view.page, SMALL_CT)
    assert_alike(run(view.page, tmp_path), ours)
    assert_told(view.page, report)


def test_a_series_and_a_picture_are_read_and_the_processor_does_it_where_a_card_fails(
    view: View, built: Path, tmp_path: Path
) -> None:
    """By networks that see what is dark, so that it is quick."""
    cascade, drawn = onnx_eyes(tmp_path), make_volume(name="coronacases_001", seed=100, size=128, depth=6)
    for name in MASKS:
        path = tmp_path / f"{name}.onnx"
        view.page.route(f"**/networks/{name}.onnx", lambda route, _, path=path: route.fulfill(path=path))
    hu, affine = np.ascontiguousarray(drawn.ct[:, :, 1:4]).astype(np.int16), np.diag([-3.0, 3, 5, 1])
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "series.nii")
    write_dicom(tmp_path / "series", hu, affine)
    grey = ((np.clip(hu[:, ::-1, 1], -1250, 250) + 1250) / 1500 * 255).astype(np.uint8)
    Image.fromarray(grey.T).save(tmp_path / "slice.png")
    nib.save(nib.Nifti1Image(grey[..., None], np.diag([-1.0, -1, 1, 1])), tmp_path / "slice.nii")

    sent: list[str] = []  # by the page and its workers, each of which tries to
    view.page.route(
        "https://example.org/**", lambda route, _: (sent.append(route.request.url), route.abort())
    )
    view.page.evaluate(SENDING)
    for name in ("worker.js", "runtime/dcm2niix/worker.jpeg.js"):
        code = (built / "_static/try" / name).read_text("utf-8") + SENDING
        view.page.route(f"**/try/{name}", lambda route, _, code=code: script(route, code))

    for reference, stored in {"series.nii": "series/*", "slice.nii": "slice.png"}.items():
        report, ours = by_the_command(tmp_path / reference, tmp_path / f"of {reference}", cascade)
        assert "ready" in (said := give(view.page, *tmp_path.glob(stored))), said
        assert_alike(run(view.page, tmp_path), ours)
        if reference == "series.nii":  # a picture has a note of its own
            assert_told(view.page, report)
        assert not view.page.inner_text("#try [data-part=aside]")
    assert sent == []
    worker = (built / "_static/try/worker.js").read_text("utf-8") + CARD
    view.page.route("**/try/worker.js", lambda route, _: script(route, worker))
    give(view.page, tmp_path / "slice.nii")
    with view.page.expect_request("**/webgpu.*"):
        assert_alike(run(view.page, tmp_path), ours)
    assert "The graphics card did not do it" in view.page.inner_text("#try [data-part=aside]")
    view.page.unroute_all()


def test_what_is_no_scan_gets_a_line_and_a_run_ends_when_it_is_stopped_or_stalls(
    view: View, tmp_path: Path
) -> None:
    page, hu = (
        view.page,
        np.random.default_rng(0).normal(-100, 400, (40, 40, 6)).clip(-1000, 1000).astype(np.int16),
    )
    nib.save(nib.Nifti1Image((hu > 0).astype(np.uint8), np.eye(4)), tmp_path / "labels.nii")
    (tmp_path / "text.nii.gz").write_text("no scan")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "colour.png")
    hard = {
        ("labels.nii",): "a label map", ("colour.png",): "its voxels are colours",
        ("text.nii.gz", "labels.nii"): "no DICOM series that can be read in 2 files",
    }  # fmt: skip
    for names, words in hard.items():
        said = give(page, *(tmp_path / name for name in names))
        assert words in said and page.locator("#try .told.wrong").count(), (names, said)
        assert page.is_disabled("#try [data-part=run]")
    nib.save(nib.Nifti1Image(hu, np.diag([3, 3, 5, 1])), tmp_path / "chest.nii")
    give(page, tmp_path / "chest.nii")
    page.click("#try [data-part=run]")
    page.click("#try [data-part=stop]")
    assert told(page) == "Stopped."

    page.route("**/try/worker.js", lambda route, _: script(route, STALLED))
    page.evaluate("() => { document.querySelector('#try').dataset.quiet = 10; }")
    page.click("#try [data-part=run]")
    page.wait_for_function(
        "() => /lungs/.test(document.querySelector('.told').textContent)", timeout=PATIENCE
    )
    assert page.evaluate(LOOK) + axe(page) == []
    assert "nothing happened for 10 seconds" in told(page)
    page.unroute("**/try/worker.js")
