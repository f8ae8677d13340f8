"""What the slices of a store are: how they were prepared, of whose scans, and on what terms.

Fusion writes it into `store.json`. The prepared real slices came without that file and are known by their
fingerprint. Of any other store without it nothing is known, and what depends on it refuses.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replication.files import read_json

ZENODO = (
    "the COVID-19 CT Lung and Infection Segmentation Dataset (Ma et al. 2020, doi 10.5281/zenodo.3757476; "
    "CC BY 4.0 by its record, CC BY-NC-SA by its author's README)"
)
MEDSEG = "MedSeg's Covid Dataset 2 (doi 10.6084/m9.figshare.13521509)"
NAMED = {"coronacases": ZENODO, "radiopaedia": ZENODO, "medseg": MEDSEG}  # source in `slices.csv` -> data set
RESEARCH = "non-commercial research only"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where slices come from; part of a record, and of the sidecar of what was trained on them.

    Attributes:
        preparation: `window` or `minmax-clahe`, see `replication.data.fusing.fusion.fuse`.
        window: HU shown as 0 and 255; None where the preparation uses none.
        size: side of the store's slices, pixels.
        scans: whose they are, in words.
        terms: on which they may be used, in words.
        public: whether anybody may read the names of patients: published data sets, and drawn volumes.
        ends: HU that are black and white in every slice of `minmax-clahe` (register row 70); None: each slice has its own.
    """

    preparation: str
    window: list[float] | None
    size: int
    scans: str
    terms: str
    public: bool
    ends: list[float] | None = None

    @property
    def prepared(self) -> str:
        """How a network's input is made, in words."""
        window = "" if self.window is None else ", [{:g}, {:g}] HU as 0..255".format(*self.window)
        return (
            f"slices as `chs-net data fuse --preparation {self.preparation}` makes them{window}, shrunk to the size "
            "of the record's config by area averaging; grey values 0..255 divided by 255, one channel, sides that "
            "divide by 16"
        )

    @property
    def licence(self) -> str:
        """What may be done with weights, in words."""
        return f"Trained on {self.scans}: {self.terms}. Not for clinical use."


# Stores without a `store.json`, by their fingerprint: the prepared real slices.
KNOWN = {
    "ce11c440440c10219efc37eb20f82f359a85f25b59430f1397e78f163db9cb79": Origin(
        preparation="minmax-clahe", window=None, size=256, scans=f"slices of {ZENODO}", terms=RESEARCH, public=True
    )
}  # fmt: skip


def read_origin(store: Path, fingerprint: str) -> Origin | None:
    """What a store says of itself, or what is known of it; None: nothing."""
    try:
        return _origin(read_json(store / "store.json"))
    except (OSError, ValueError, KeyError, TypeError):
        return KNOWN.get(fingerprint)


def _origin(told: dict[str, Any]) -> Origin:
    """Of what fusion wrote."""
    stated, volumes, sources = told.get("stated", {}), told.get("volumes", {}), sorted(told.get("counts", {}))
    drawn = sum(volume.get("drawn", False) for volume in volumes.values())
    published = bool(sources) and set(sources) <= set(NAMED)
    scans, terms = "scans of one's own, which were given no name", "terms not stated"
    if volumes and drawn == len(volumes):
        scans, terms = f"{drawn} drawn volume{'s' * (drawn != 1)} (chs-net data phantom)", "no patient's data"
    elif published and all("drawn" in volume for volume in volumes.values()):
        scans = "volumes under the names of " + " and ".join(dict.fromkeys(NAMED[s] for s in sources))
        terms = RESEARCH
    elif published:
        scans = f"volumes under the names of {', '.join(sources)}"
    return Origin(
        preparation=told["preparation"],
        window=told["window"] if told["preparation"] == "window" else None,
        size=told["size"],
        scans=stated.get("name", scans),
        terms=stated.get("licence", terms),
        public=published or bool(volumes) and drawn == len(volumes),
        ends=told.get("ends", {}).get("hounsfield"),
    )


def origin_of(record: dict[str, Any]) -> Origin | None:
    """Of the slices that a run was trained on, by its record."""
    told = record.get("data", {}).get("origin")
    return Origin(**told) if told else KNOWN.get(record["config"].get("data_fingerprint", ""))
