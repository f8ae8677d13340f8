"""What a volume's name tells: its source, its patient, and how the source stores it.

The same volume has several names: `coronacases_001` is `coronacases_org_001` in the Kaggle mirror,
and MedSeg's nr. 2 names its volumes 1 to 9 (`rp_im/1.nii.gz`; here `medseg_1`).
"""

import re

PARTS = ("ct", "lung", "infection")  # a volume's three files, and a slice's three pictures
SOURCES = ("coronacases", "radiopaedia", "medseg")
REPEATED_STUDIES = ("radiopaedia_10_85902",)  # one patient, several volumes: 20 volumes, 19 patients
# The paper's two sources (Table 1), by the names of its references.
DATASETS = {"[27] nr. 2": ("medseg",), "[28] Zenodo 3757476": ("coronacases", "radiopaedia")}

# What `chs-net segment` writes for a scan; a folder that holds these is no input.
RESULTS = ("lungs.nii.gz", "infection.nii.gz", "report.json")

_FORMS = (
    (r"coronacases(?:_org)?_(\d+)", "coronacases_{}"),
    (r"radiopaedia(?:_org_covid-19-pneumonia-|_)(\d+_\d+_\d+)(?:-dcm)?", "radiopaedia_{}"),
    (r"medseg_(\d+)", "medseg_{}"),
)


def stem(filename: str) -> str | None:
    """`1` of `1.nii.gz` or `1.nii`; None where the suffix is another."""
    match = re.fullmatch(r"(.+?)\.nii(\.gz)?", filename, re.IGNORECASE)
    return match[1] if match else None


def canonical(name: str) -> str:
    """A volume's one name here, from any of those it goes by (no suffix, no folder).

    A name that follows none of the known forms but begins with a source (`coronacases_x`, a lab's
    own) is its own canonical name.

    Raises:
        ValueError: for a name that tells no source.
    """
    for form, ours in _FORMS:
        if match := re.fullmatch(form, name):
            return ours.format(match[1])
    if name.split("_")[0] not in SOURCES or "_" not in name:
        raise ValueError(
            f"volume {name!r}: expected a name that begins with coronacases_, radiopaedia_ or medseg_, "
            "because orientation and patient follow from it; rename the three files"
        )
    return name


def source_of(volume: str) -> str:
    """`coronacases`, `radiopaedia` or `medseg`; ValueError as `canonical`."""
    return canonical(volume).split("_")[0]


def patient_of(volume: str) -> str:
    """The patient that a volume shows, as far as names tell; see `duplicates` for what they don't."""
    name = canonical(volume)
    return next((s for s in REPEATED_STUDIES if name.startswith(s + "_")), name)
