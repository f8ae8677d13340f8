"""The table of sources, and its checksums."""

import re

import pytest
from served import CT, LUNG, MEDSEG, SMALL, ZENODO

from replication.data.getting.download import download
from replication.data.getting.sources import SOURCES, describe_sources


def test_the_table_is_that_of_the_publishers() -> None:
    zenodo, medseg = SOURCES["zenodo"], SOURCES["medseg"]
    assert len(zenodo.depths) == 20 and sum(zenodo.depths.values()) == zenodo.slices == 3520
    assert sum(d for v, d in zenodo.depths.items() if v.startswith("radiopaedia")) == 829 + 110
    assert list(medseg.depths) == [f"medseg_{k}" for k in range(1, 10)] and medseg.slices == 829
    assert ZENODO == {CT: "ct", LUNG: "lung", "Infection_Mask.zip": "infection"}
    assert MEDSEG == {"rp_im.zip": "ct", "rp_lung_msk.zip": "lung", "rp_msk.zip": "infection"}
    sums = [a.sha256 for a in zenodo.archives]
    assert len(set(sums)) == 4 and all(re.fullmatch("[0-9a-f]{64}", s) for s in sums)
    assert sums[0].startswith("a5060480") and sums[1].startswith("f060b0d0")
    assert sums[2].startswith("87901c73") and sums[3].startswith("34f5a573")
    assert not any(a.sha256 for a in medseg.archives)
    numbers = {a.name: {u.rsplit("/", 1)[1] for u in a.urls} for a in medseg.archives}
    assert numbers == {"rp_im.zip": {"25954007"}, "rp_lung_msk.zip": {"25954010"}, "rp_msk.zip": {"25954013"}}
    assert zenodo.archives[0].urls == (f"https://zenodo.org/records/3757476/files/{CT}",)


def test_the_table_for_a_notebook() -> None:
    table = describe_sources()
    assert len(table) == 7 and list(table["dataset"]) == ["zenodo"] * 4 + ["medseg"] * 3
    assert set(table.columns) >= {
        "reference",
        "file",
        "part",
        "sha256",
        "licence",
        "volumes",
        "slices",
        "cite",
    }
    assert table.set_index("file").loc["Lung_and_Infection_Mask.zip", "part"] == "not needed"
    assert table["licence"].str.contains("non-commercial").all() and not table.isna().any(axis=None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"datasets": ("zenodoo",)}, "zenodoo"),
        ({"datasets": "zenodo"}, "expected a list"),
        ({"datasets": ()}, "expected a list"),
        ({"base_urls": {"kaggle": "http://x"}}, "kaggle"),
        ({"checksums": {"x.zip": "00"}}, "x.zip"),
        ({"tries": 0}, "tries 0"),
    ],
)
def test_arguments(tmp_path, options, said) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        download(tmp_path, sources=SMALL, **{"progress": False, "offline": "tries" not in options, **options})
