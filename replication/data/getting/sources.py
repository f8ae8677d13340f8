"""The paper's two data sources (Sec. 4.1, Table 1): what they are and where; `download` gets them.

The data are for non-commercial research. The Zenodo record says CC BY 4.0, its author's README
CC BY-NC-SA: keep to the stricter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Archive:
    """One file of a source. `sha256` None: not published, recorded on first use."""

    name: str
    part: str | None  # ct, lung or infection; None: declared, but not needed
    sha256: str | None
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A published data set; `depths` maps its volumes to their slices (None: not known one by one)."""

    reference: str
    page: str
    licence: str
    cite: str
    archives: tuple[Archive, ...]
    depths: Mapping[str, int | None]
    slices: int
    numbered: bool = False  # members are called 1.nii.gz, 2.nii.gz


def _zenodo(name: str, part: str | None, sha256: str) -> Archive:
    return Archive(name, part, sha256, (f"https://zenodo.org/records/3757476/files/{name}",))


def _figshare(name: str, part: str, number: int) -> Archive:
    # figshare.com/ndownloader answers scripts with 202 and an empty body, its two other doors do not.
    doors = (
        "ndownloader.figshare.com/files",
        "api.figshare.com/v2/file/download",
        "figshare.com/ndownloader/files",
    )
    return Archive(name, part, None, tuple(f"https://{door}/{number}" for door in doors))


SOURCES: dict[str, Source] = {
    "zenodo": Source(
        reference="[28] Zenodo 3757476",
        page="https://zenodo.org/records/3757476",
        licence="record: CC BY 4.0; author's README: CC BY-NC-SA; use for non-commercial research",
        cite="Ma, J. et al. COVID-19 CT Lung and Infection Segmentation Dataset. Zenodo, 2020. "
        "doi:10.5281/zenodo.3757476",
        archives=(
            _zenodo("COVID-19-CT-Seg_20cases.zip", "ct",
                    "a5060480eff9315b069b086312dac4872777901fb80d268a5a83edd9f4e7b440"),
            _zenodo("Lung_Mask.zip", "lung",
                    "f060b0d0299939a6d95ddefdbfa281de1a779c4d230a5adbd32414711d6d8187"),
            _zenodo("Infection_Mask.zip", "infection",
                    "87901c73fdd2230260e61d2dbc57bf56026efc28264006b8ea2bf411453c1694"),
            _zenodo("Lung_and_Infection_Mask.zip", None,
                    "34f5a573cb8fb53cb15abe81868395d9addf436854826a6fd6e70c2b294f19c3"),
        ),
        depths={
            "coronacases_001": 301, "coronacases_002": 200, "coronacases_003": 200,
            "coronacases_004": 270, "coronacases_005": 290, "coronacases_006": 213,
            "coronacases_007": 249, "coronacases_008": 301, "coronacases_009": 256,
            "coronacases_010": 301,
            "radiopaedia_10_85902_1": 39, "radiopaedia_10_85902_3": 418,
            "radiopaedia_14_85914_0": 110, "radiopaedia_27_86410_0": 66,
            "radiopaedia_29_86490_1": 42, "radiopaedia_29_86491_1": 42,
            "radiopaedia_36_86526_0": 45, "radiopaedia_40_86625_0": 93,
            "radiopaedia_4_85506_1": 39, "radiopaedia_7_85703_0": 45,
        },
        slices=3520,
    ),
    "medseg": Source(
        reference="[27] nr. 2",
        page="https://doi.org/10.6084/m9.figshare.13521509",
        licence="as on the figshare record; use for non-commercial research",
        cite="MedSeg, Jenssen, H. B. and Sakinis, T. MedSeg Covid Dataset 2. figshare, 2021. "
        "doi:10.6084/m9.figshare.13521509",
        archives=(
            _figshare("rp_im.zip", "ct", 25954007),
            _figshare("rp_lung_msk.zip", "lung", 25954010),
            _figshare("rp_msk.zip", "infection", 25954013),
        ),
        depths={f"medseg_{k}": None for k in range(1, 10)},
        slices=829,
        numbered=True,
    ),
}  # fmt: skip


def describe_sources(sources: Mapping[str, Source] = SOURCES) -> pd.DataFrame:
    """One row per archive: dataset, reference, file, part, sha256, licence, volumes, slices, cite."""
    return pd.DataFrame(
        [
            {
                "dataset": key, "reference": source.reference, "file": archive.name,
                "part": archive.part or "not needed", "sha256": archive.sha256 or "recorded on first use",
                "licence": source.licence, "volumes": len(source.depths), "slices": source.slices,
                "cite": source.cite,
            }
            for key, source in sources.items()
            for archive in source.archives
        ]
    )  # fmt: skip
