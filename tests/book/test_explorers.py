"""What can be moved: frames of the records and of chslib's own values, one of them shown, small, and asking no host."""

import re
from pathlib import Path

import explorers
import numpy as np
import pytest
import torch
from page_numbers import Numbers

from chslib.metrics import scores
from chslib.pooling import spectral_resample2d
from replication.analysis.thresholds import pooled, read_thresholds
from replication.evidence.estimates import Ours
from replication.evidence.records import load_records

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    numbers = Numbers(ROOT)
    return {name: explorers.explorer(numbers, name) for name in explorers.EXPLORERS}


def test_they_are_small_stand_without_a_blank_line_and_ask_no_host(drawn) -> None:
    assert sum(map(len, drawn.values())) < 300_000
    for name, html in drawn.items():
        assert "\n\n" not in html and "http" not in html.replace("http-equiv", ""), name
        keys = [k for k in re.findall(r'data-key="(\w+)"', html)]
        if keys:
            shown = re.findall(r'class="frame shown"((?: data-\w+="\d+")+)', html)
            assert shown and len(set(shown)) == 1, f"{name}: one default"
            for key in keys:
                count = len(re.search(rf'data-key="{key}" data-texts="([^"]*)"', html)[1].split("|"))
                assert {int(v) for v in re.findall(rf' data-{key}="(\d+)"', html)} == set(range(count)), name
    script = (ROOT / "book/_static/explore.js").read_text()
    assert "http" not in script and len(script.splitlines()) < 200
    names = set(re.findall(r"\{\{ explore (\w+) \}\}", (ROOT / "book/explore.md").read_text()))
    assert names == set(explorers.EXPLORERS)


def test_the_cuts_are_the_records(drawn) -> None:
    found = {(r["profile"], r["run"]): r for r in read_thresholds(ROOT / "results")}
    for run in ("table3-miniseg", "table3-miniseg-patient-fold0"):
        of = scores(pooled(found["cpu-256", run], "test"))
        for p, r, d in zip(of["precision"], of["recall"], of["dsc"]):
            assert f"precision {p:.2f}, recall {r:.2f}, DSC {d:.2f}" in drawn["thresholds"]


def test_every_run_on_infection_has_its_dot_and_its_commit(drawn) -> None:
    told = re.findall(r'data-tell="([^"]+)"', drawn["results"])
    runs = {}
    for profile in ("cpu", "cpu-long", "cpu-30", "cpu-256", "paper"):
        out_of_time = Ours(ROOT / "results", (profile,)).cut_short[
            profile
        ]  # answers no number, and has no dot
        for name, record in load_records(ROOT / "results", profile)[0].items():
            if record["config"]["target"] == "infection" and name not in out_of_time:
                runs[f"{profile}/{name}"] = record
    assert len(told) == len(runs) > 60
    for line in told:
        record = runs[line.split(":")[0]]
        assert f"DSC {record['test']['pooled']['dsc']:.3f}," in line and record["commit"][:8] in line


def test_poolings_are_chslib_s_and_costs_eq_1_s(drawn) -> None:
    edge = np.full((explorers.SIDE, explorers.SIDE), 0.2)
    edge[:, explorers.SIDE // 2 - 3 :] = 0.8
    x = torch.from_numpy(edge)[None, None]
    for factor in explorers.FACTORS[:3]:
        y = spectral_resample2d(x, (explorers.SIDE // factor, explorers.SIDE // factor))
        assert f"energy {float(y.var(correction=0) / x.var(correction=0)):.2f}, rings" in drawn["pooling"]
    assert drawn["pooling"].count("<figure>") == len(explorers.FACTORS) * 12
    assert "1/48 + 1/3² = 0.132: 7.6 times fewer multiplications" in drawn["cost"]
    assert "nothing saved" in drawn["cost"]


def test_without_its_record_a_chart_reads_not_run(tmp_path) -> None:
    assert "not run" in explorers.explorer(Numbers(tmp_path), "thresholds")
