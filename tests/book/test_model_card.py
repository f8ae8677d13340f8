"""The model card: its tables are the sidecars', the records' and the sealed test's, and its words hold."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model_card import Card

from chslib.inference import predict_masks, segment_volume
from chslib.network import CHSNet
from chslib.pretrained import DEFAULT, FOLDER, available, load_pretrained, read_weights
from replication.data.phantom.volumes import make_volume
from replication.training.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[2]

PAGE = " ".join((ROOT / "book/model_card.md").read_text(encoding="utf-8").split())
RECORDS = {name: json.loads((ROOT / "results" / f"{name}.json").read_text()) for name in available()}
OF = {
    target: [name for name, record in RECORDS.items() if record["config"]["target"] == target]
    for target in ("lungs", "infection")
}
CASCADES = [name for name in OF["infection"] if read_weights(name)[1]["first_stage"]]


def rows(part: str) -> dict[str, list[str]]:
    lines = Card(ROOT).part(part).splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells[2:]}


def test_every_file_is_listed_with_its_checksum() -> None:
    listed = rows("checksums")
    assert list(listed) == list(rows("weights")) == available()
    for name, (_, told) in listed.items():
        assert hashlib.sha256((FOLDER / f"{name}.safetensors").read_bytes()).hexdigest() == told


@pytest.mark.parametrize("target", ["lungs", "infection"])
def test_each_patient_s_score_is_the_record_s(target: str) -> None:
    told, sealed = rows(target), json.loads((ROOT / "results/sealed-test.json").read_text())
    for column, name in enumerate(OF[target]):
        patients = RECORDS[name]["test"]["patients"]
        assert {who: cells[column] for who, cells in told.items() if cells[column] != "—" and "sealed" not in who} == {
            who: f"{scores['dsc']:.2f}" for who, scores in patients.items()
        }  # fmt: skip
    for name, of in sealed["evaluated"].items():
        if target == "infection" and name in OF[target]:
            for who, dsc in of["infection"]["patients_dsc"].items():
                assert told[f"{who}`, sealed"][OF[target].index(name)] == f"{dsc:.2f}"
    assert sum("sealed" in who for who in told) == len(sealed["volumes"])


def test_weights_that_disagree_in_words_are_told(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "chslib/weights", tmp_path / "chslib/weights")
    for profile in (ROOT / "chslib/weights").iterdir():
        shutil.copytree(ROOT / "results" / profile.name, tmp_path / "results" / profile.name)
    shutil.copy(ROOT / "results/sealed-test.json", tmp_path / "results")
    assert "non-commercial" in Card(tmp_path).part("licence")
    path = tmp_path / "chslib/weights/cpu/table2-lungs.json"
    path.write_text(path.read_text().replace("non-commercial", "any"))
    with pytest.raises(ValueError, match="2 texts of 'licence'"):
        Card(tmp_path).part("licence")


# ---- what the page says in words ---------------------------------------------------------------


def masks(name: str, ct: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Lungs, where the network looks for them, and infection of slices."""
    network = load_pretrained(name)
    if isinstance(network, CHSNet):
        return segment_volume(network, ct)
    return None, predict_masks(network, ct[:, None], batch_size=4)[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASCADES)
def test_on_drawn_chests_without_infection_a_cascade_marks_some(name: str) -> None:
    assert "On drawn chests without any infection both cascades mark some all the same" in PAGE
    assert "both cascades find lungs that are not there, and infection" in PAGE
    size = RECORDS[name]["config"]["size"]
    for seed in range(2):
        volume = make_volume(name="coronacases_001", seed=seed, size=size, depth=9, infected=0.0)
        assert not volume.infection.any()
        ct = np.stack([np.rot90(plane) for plane in volume.ct.transpose(2, 0, 1)]).clip(-1250, 250)
        lungs, infection = masks(name, ((ct + 1250.0) / 1500 * 255).round().astype(np.uint8))
        empty = ~volume.lung.any(axis=(0, 1))
        assert empty[[0, -1]].all() and not empty[1:-1].any()
        assert infection[~empty].any(), seed
        assert lungs[empty].any() and infection[empty].any(), seed


@pytest.mark.parametrize("name", CASCADES)
def test_where_no_lung_is_found_no_infection_is_marked(name: str) -> None:
    assert "Where the first network finds no lung at all, as in air, the second one marks nothing" in PAGE
    lungs, infection = masks(name, np.zeros((1, 128, 128), np.uint8))
    assert not lungs.any() and not infection.any()
    with torch.inference_mode():
        assert (load_pretrained(name).infection(torch.zeros(1, 1, 256, 256)) <= 0).all()


def test_what_the_card_judges_still_holds() -> None:
    sealed = json.loads((ROOT / "results/sealed-test.json").read_text())["evaluated"]
    folds = [
        json.loads((ROOT / f"results/cpu/table2-infection-patient-fold{k}.json").read_text())
        for k in range(5)
    ]
    of_fold = [record["test"]["pooled"]["dsc"] for record in folds]
    tiny = [of["test"]["patients"].get("radiopaedia_29_86490_1") for of in RECORDS.values()
            if of["config"]["target"] == "infection"]  # fmt: skip
    of_all = [of for path in (ROOT / "results").glob("*/*.json") if path.parent.name in PROFILES
              if (record := json.loads(path.read_text()))["config"]["target"] == "infection"
              if (of := record["test"]["patients"].get("radiopaedia_29_86490_1"))]  # fmt: skip
    hits = [scores for scores in of_all if scores["recall"] > 0]
    lowest = {min(of["infection"]["patients_dsc"].items(), key=lambda item: item[1])[0]
              for name, of in sealed.items() if name in OF["infection"]}  # fmt: skip
    (widest,) = {len(of["data"]["split"]["train"]["patients"]) for of in RECORDS.values()
                 if of["config"]["protocol"] == "slice"}  # fmt: skip
    claims = {
        "that is the best fold of five": max(of_fold) == of_fold[3],
        "All of it was missed by each network of this page that was tested on it":
            {scores["recall"] for scores in tiny if scores} == {0.0},
        "A few runs of the project hit some of it, and mark many times as much beside it":
            0 < len(hits) < 0.25 * len(of_all) and max(scores["precision"] for scores in hits) < 0.1,
        "has the lowest score of the three with each of these weights": lowest == {"radiopaedia_40_86625_0"},
        "of at most {{ people }} patients": widest == RECORDS[DEFAULT]["data"]["patients"],
        "That is `paper/table2-infection-patient-fold3` with its first stage": DEFAULT == "paper/table2-infection-patient-fold3",
    }  # fmt: skip
    assert [words for words in claims if words not in PAGE] == [], "said no more: leave them out here"
    assert [words for words, holds in claims.items() if not holds] == [], "the records say otherwise"


def test_no_score_of_the_card_is_typed_by_hand() -> None:
    typed = re.findall(r"\b[01]\.\d+\b", re.sub(r"\{\{[^{}]+\}\}", "", PAGE))
    assert typed == ["0.5"]  # the threshold
