"""DICOM as it is exported, anonymised and copied about: the same scan, or the one reason why it is none and a cure."""

import copy
import gzip
import re
from collections.abc import Callable

import numpy as np
import pytest
from chest import CASES, DEPTH, WITH_CASES, Drawn, dicom_slices, put_dicom, voxels, write_dicom
from pydicom.uid import generate_uid

from replication.data.reading.scan import Scan

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
RNG = np.random.default_rng(0)
Slices = list


def is_drawn(scan: Scan, drawn: Drawn, *, mm: float = 1e-3) -> bool:
    same = np.array_equal(voxels(scan), np.maximum(drawn.hu, -1024))
    return same and np.allclose(scan.affine, drawn.affine, atol=mm)


# ---- the same scan -----------------------------------------------------------------------------


def each(change: Callable) -> Callable[[Slices], Slices]:
    """A change of every slice, by its number."""

    def of(slices: Slices) -> Slices:
        for k, one in enumerate(slices):
            change(k, one)
        return slices

    return of


def tags(**values: object) -> Callable[[Slices], Slices]:
    """Tags of every slice: a value, "" for emptied, None for gone, or what a function of its number gives."""

    def change(k: int, one) -> None:
        for name, value in values.items():
            if value is None:
                delattr(one, name)
            else:
                setattr(one, name, value(k) if callable(value) else value)

    return each(change)


def noise(name: str, size: float) -> Callable[[Slices], Slices]:
    def change(k: int, one) -> None:
        value = np.array(getattr(one, name), float)
        setattr(one, name, [float(f"{v:.7f}") for v in value + RNG.uniform(-size, size, len(value))])

    return each(change)


def moved(axis: int, mm: Callable[[int], float]) -> Callable[[Slices], Slices]:
    def change(k: int, one) -> None:
        one.ImagePositionPatient = [
            v + (mm(k) if i == axis else 0) for i, v in enumerate(one.ImagePositionPatient)
        ]

    return each(change)


def with_page(**changed: object) -> Callable[[Slices], Slices]:
    """One more file, copied from the last slice and changed."""

    def of(slices: Slices) -> Slices:
        page = copy.deepcopy(slices[-1])
        page.SOPInstanceUID = page.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        return [*slices, *tags(**changed)([page])]

    return of


def small(**changed: object) -> dict[str, object]:
    return {"Rows": 8, "Columns": 8, "PixelData": bytes(2 * 8 * 8), **changed}


TAKEN = ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "PatientID", "Modality", "SeriesNumber",
         "SeriesDescription", "InstanceNumber", "ImageType")  # fmt: skip
SAME = {
    "as it is": (lambda s: s, ""),
    "made up a file": (tags(**dict.fromkeys(("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"), lambda k: generate_uid()),
        **dict.fromkeys(("PatientID", "SeriesNumber", "SeriesDescription"), str)), ""),
    "UIDs, names, numbers gone": (tags(**dict.fromkeys(TAKEN)), ""),
    "UIDs, names, numbers emptied": (tags(**dict.fromkeys(TAKEN, "")), ""),
    "class gone, modality small": (tags(SOPClassUID=None, Modality="ct"), ""),
    "class and modality emptied": (tags(SOPClassUID="", Modality=""), ""),
    "class and modality no words of DICOM": (tags(SOPClassUID="1.2.3", Modality="ANON"), ""),
    "all are captures": (tags(SOPClassUID=CAPTURE, Modality="OT"), ""),
    "what pixels need gone": (tags(PhotometricInterpretation=None, SamplesPerPixel=None, BitsStored=None, PixelRepresentation=None), ""),
    "intercept gone in some": (tags(RescaleIntercept=lambda k: "" if k % 3 else -1024), "8 slices without.*: taken -1024.0?, as the others"),
    "monochrome1 in some": (tags(PhotometricInterpretation=lambda k: f"Monochrome{1 + k % 2}", PresentationLUTShape="INVERSE"), ""),
    "numbered backwards": (tags(InstanceNumber=lambda k: 99 - k), ""),
    "orientation noise": (noise("ImageOrientationPatient", 3e-4), "off the even stack"),
    "spacing noise": (noise("PixelSpacing", 1e-4), "off the even stack"),
    "positions noise": (noise("ImagePositionPatient", 0.1), r"up to 0\.\d+ mm off.*at most 0.5 mm"),
    "positions rounded": (moved(2, lambda k: round(0.4 * k) - 0.4 * k), "off the even stack"),
    "page without place": (with_page(SOPClassUID=CAPTURE, ImagePositionPatient=None, ImageOrientationPatient=None), "1 files left out: without"),
    "page in place": (with_page(SOPClassUID=CAPTURE), "1 files left out: secondary captures"),
    "scout": (with_page(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "1 files left out: localisers"),
    "dose report": (with_page(Modality="SR"), "1 files left out: modality SR"),
    "PET": (with_page(SOPClassUID="1.2.840.10008.5.1.4.1.1.128", Modality=None), "1 files left out: no CT, but Positron"),
    "page in colour": (with_page(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "1 files left out: colour"),
    "page of another size": (with_page(**small()), "1 files left out: of another size"),
    "scout without its type": (with_page(ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImageType=None), "direction"),
    "a file twice, rescaled otherwise": (lambda s: with_page(InstanceNumber=77, RescaleIntercept=-1034, PixelData=np.add(
        np.frombuffer(s[-1].PixelData, "<u2"), 10, dtype="<u2").tobytes())(s), "the same picture again"),
    "bolus tracking": (lambda s: s + tags(SeriesInstanceUID="1.2.3", SeriesNumber=9, SOPInstanceUID=lambda k: f"1.2.{k}", RescaleIntercept=lambda k: -k)(
        [copy.deepcopy(s[3]) for _ in range(9)]), "9 files left out: pictures of fewer than 3 places"),
    "some slices again": (lambda s: s + tags(AcquisitionNumber=2, RescaleIntercept=-9)(copy.deepcopy(s[3:5])), "2 files left out: of another Acq"),
    "every file twice": (lambda s: s + copy.deepcopy(s), f"{DEPTH} files left out: the same picture again"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_what_exports_and_anonymisers_change_is_the_same_scan(case, drawn, tmp_path):
    change, said = SAME[case]
    scan = Scan(put_dicom(tmp_path / "series", change(dicom_slices(drawn.hu, drawn.affine))))
    assert is_drawn(scan, drawn, mm=0.5) and not scan.doubts
    assert bool(scan.notes) == bool(said)
    assert re.search(said, " ".join(scan.notes))


@pytest.mark.parametrize("implicit, little", [(True, True), (False, True), (False, False)])
def test_a_file_without_preamble_is_read_as_it_begins(implicit, little, drawn, tmp_path):
    slices = dicom_slices(drawn.hu, drawn.affine)
    for one in slices:
        del one.file_meta
        if not little:
            one.PixelData = np.frombuffer(one.PixelData, "<u2").astype(">u2").tobytes()
    how = {"implicit_vr": implicit, "little_endian": little, "enforce_file_format": False}
    assert is_drawn(Scan(put_dicom(tmp_path / "series", slices, **how)), drawn)


EXPLICIT = b"1.2.840.10008.1.2.1\0"


@pytest.mark.parametrize("change", [
    gzip.compress,
    lambda data: data[132:],
    lambda data: data.replace(EXPLICIT, b"1.2.840.10008.1.2.5\0"),
    lambda data: data.replace(EXPLICIT, b"1.2.3".ljust(20, b"\0")),
    lambda data: data.replace(b"5.2\\4.8", b"5,2\\4,8"),
    lambda data: data + bytes(99),
], ids=["gzip", "preamble alone gone", "told packed", "told unknown", "commas", "trailing bytes"])  # fmt: skip
def test_a_file_is_read_as_its_bytes_are_not_as_it_tells(change, drawn, tmp_path):
    folder = write_dicom(tmp_path / "series", drawn.hu, drawn.affine)
    for path in folder.iterdir():
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        assert path.read_bytes() != whole
    assert is_drawn(Scan(folder), drawn)


def test_links_are_followed_and_a_circle_ends(drawn, tmp_path):
    series = write_dicom(tmp_path / "elsewhere" / "series", drawn.hu, drawn.affine)
    for name, targets in {"folder": [series], "files": sorted(series.iterdir())}.items():
        (tmp_path / name).mkdir()
        for target in targets:
            (tmp_path / name / target.name).symlink_to(target)
        (tmp_path / name / "again").symlink_to(tmp_path / name)
        assert is_drawn(Scan(tmp_path / name), drawn)


# ---- several scans -----------------------------------------------------------------------------


def again(**changed: object) -> Callable[[Slices], Slices]:
    """A second phase of the same places, brighter by 7 HU; `changed` are its tags."""

    def of(slices: Slices) -> Slices:
        second = copy.deepcopy(slices)
        for one in second:
            one.RescaleIntercept = -1017
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        return slices + tags(**changed)(second)

    return of


@pytest.mark.parametrize("change, named, which", [
    (again(AcquisitionNumber=2), "2 phases of one series.*--series 2:2: .*AcquisitionNumber 2", "2:2"),
    (again(TriggerTime=450), "TriggerTime 450", "2:450.0"),
    (again(ContrastBolusAgent="Iomeprol"), "ContrastBolusAgent Iomeprol", "2:Iomeprol"),
    (lambda s: tags(InstanceNumber=None)(tags(AcquisitionTime=lambda k: f"{120000 + k}")(again()(s))), "pass by AcquisitionTime 2", "2:2"),
    (lambda s: s + moved(2, lambda k: 4.5)(again(ConvolutionKernel="B70")(s)[DEPTH:]), "ConvolutionKernel B70", "2:B70"),
    (again(), "2 phases of one series.*folder late", "2:late"),
    (again(InstanceNumber=lambda k: k + 101), "pass by InstanceNumber 2", "2:2"),
    (again(SeriesInstanceUID="1.2.3", SeriesNumber=7), r"2 CT series; name one.*--series 7: number 7 \(chest", "7"),
    (again(SeriesInstanceUID="1.2.3"), "--series 1.2.3: number 2", "1.2.3"),
    (lambda s: tags(SeriesInstanceUID="")(again(SeriesNumber=9)(s)), "2 CT series.*--series 9: ", "9"),
    (lambda s: tags(SeriesInstanceUID="", SeriesNumber="")(again(SeriesDescription="late")(s)), "2 CT series.*no.2: number none .late", "no.2"),
])  # fmt: skip
def test_of_several_phases_or_series_one_is_named(change, named, which, drawn, tmp_path):
    slices, folder = change(dicom_slices(drawn.hu, drawn.affine)), tmp_path / "series"
    late = DEPTH if "folder" in named else len(slices)
    put_dicom(folder, slices[:late])
    put_dicom(folder / "late", slices[late:])
    with pytest.raises(ValueError, match=f"(?s){named}"):
        Scan(folder)
    assert voxels(Scan(folder, series=which)).max() == drawn.hu.max() + 7
    with pytest.raises(ValueError, match="0 series are called 'x'; expected one of"):
        Scan(folder, series="x")


# ---- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("change, said", [
    (lambda s: s[:5] + s[6:], r"1 slice is missing, between 66.0 and 84.0 mm; the others lie 9.00 mm apart. Export"),
    (lambda s: s[:1] + s[2:5] + s[8:], "4 slices are missing, between 30.0 and 48.0 mm, between"),
    (lambda s: s[:2] + s[8:9], "6 slices are missing"),
    (moved(2, lambda k: 0.1 * k * k), "apart, unevenly; resample it, .*dicom2nifti.*validate_slice_increment"),
    (moved(1, lambda k: 3 * k), r"18.4 degrees off their normal \(a tilted gantry\); resample it, .*dicom2nifti.*validate_orthogonal"),
    (moved(1, lambda k: -0.3 * k), "1.9 degrees off their normal"),
    (moved(0, lambda k: 3 * (k % 2)), "shifted in their plane by up to 1.[0-9] mm .at most 0.5 mm"),
    (with_page(PixelData=bytes(2 * 56 * 62), InstanceNumber=3), "2 different pictures lie at one place.*keep one"),
    (tags(PixelSpacing=None), f"{DEPTH} files left out: without PixelSpacing"),
    (tags(ImagePositionPatient=""), "without ImagePositionPatient"),
    (tags(ImagePositionPatient=[0, 0, 0]), "pictures of fewer than 3 places .*an export that lost ImagePositionPatient"),
    (tags(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "no two directions at right angles"),
    (lambda s: s[:2], "no CT series of 3 slices or more .2 files left out"),
    (tags(Modality="MR"), "left out: modality MR"),
])  # fmt: skip
def test_what_is_no_volume_is_refused_for_the_one_reason_that_holds(change, said, drawn, tmp_path):
    folder = put_dicom(tmp_path / "series", change(dicom_slices(drawn.hu, drawn.affine)))
    with pytest.raises(ValueError, match=said) as refused:
        Scan(folder)
    reasons = ("missing", "unevenly", "tilted", "shifted", "different pictures", "right angles", "left out")
    assert str(folder) in str(refused.value) and sum(word in str(refused.value) for word in reasons) == 1


# ---- multi-frame -------------------------------------------------------------------------------


def multi_frame(slices: Slices, **changed: object):
    """The slices as one enhanced file, by highdicom."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    needed = {"PatientName": "A^B", "PatientBirthDate": "", "PatientSex": "", "AccessionNumber": "", "StudyID": "", "StudyDate": "",
              "StudyTime": "", "Manufacturer": "M", "PatientPosition": "HFS", "PositionReferenceIndicator": ""}  # fmt: skip
    slices = [copy.deepcopy(one) for one in slices]
    return tags(**changed)(
        [LegacyConvertedEnhancedCTImage(tags(**needed)(slices), generate_uid(), 5, generate_uid(), 1)]
    )[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change, said", [
    (lambda s: multi_frame(s), ""),
    (lambda s: multi_frame(s[::2] + s[1::2], SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"), ""),
    (lambda s: multi_frame(s, PhotometricInterpretation="MONOCHROME1", SeriesInstanceUID=""), ""),
    (lambda s: multi_frame(noise("ImagePositionPatient", 0.05)(s)), "off the even stack"),
    (lambda s: multi_frame(s[:4] + s[5:]), "1 slice is missing"),
    (lambda s: multi_frame(moved(1, lambda k: 3 * k)(s)), "a tilted gantry"),
    (lambda s: multi_frame(again(AcquisitionNumber=2, InstanceNumber=lambda k: 50 + k)(s)), "AcquisitionNumber 2"),
    (lambda s: multi_frame(s[:2]), "one DICOM slice|fewer"),
    (lambda s: multi_frame(s[:6], InConcatenationTotalNumber=2), "1 of 2 files of one scan"),
], ids=["as converted", "frames in disorder", "monochrome1", "noise", "missing", "tilted", "phases", "two frames", "a part"])  # fmt: skip
def test_a_multi_frame_file_is_read_or_refused_as_its_slices_would_be(change, said, drawn, tmp_path):
    path = tmp_path / "enhanced.dcm"
    change(dicom_slices(drawn.hu, drawn.affine)).save_as(path)
    for given in (path, tmp_path):
        try:
            scan = Scan(given)
        except ValueError as error:
            assert said and re.search(said, str(error)), error
        else:
            assert is_drawn(scan, drawn, mm=0.1) and said in " ".join(scan.notes)


# ---- the small CT, where it is present ---------------------------------------------------------


@WITH_CASES
@pytest.mark.parametrize("case", ["dicom", "no_series_uid", "no_modality", "no_preamble", "no_frame_of_reference", "orientation_noise",
                                  "rounded_positions", "report_page_in_series", "monochrome1", "linked"])  # fmt: skip
def test_the_small_ct_as_it_was_found_is_the_same_scan(case):
    assert np.array_equal(voxels(Scan(CASES / case)), voxels(Scan(CASES / "reference.nii.gz")))
