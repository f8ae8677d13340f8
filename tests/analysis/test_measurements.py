"""What `chs-net measure` writes: with the code that made it, read by its table, refused where it was changed or is of something else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from replication.analysis.contrast import read_contrast
from replication.analysis.false_alarms import read_false_alarms
from replication.analysis.leak import read_leakage
from replication.analysis.lesions import read_lesions
from replication.analysis.speed import read_benchmark
from replication.analysis.thresholds import read_thresholds
from replication.cli import main
from replication.provenance import digest

ROOT = Path(__file__).resolve().parents[2]
RUN = "beyond-unet"  # a direct run, of `trained`
OF_RUNS = ("--profile", "tiny", RUN)


# What is measured -> arguments, the record, a reader of the results' folder, what a good record prints, and a value of it.
MEASURED: dict[str, tuple[tuple[str, ...], str, Callable, str, str]] = {
    "leak": (("--size", "64"), "nearest-slice.json", lambda f: read_leakage(f / "nearest-slice.json"), "infection DSC", '"seed": 1'),
    "contrast": (("--size", "64"), "contrast.json", lambda f: read_contrast(f / "contrast.json"), "radiopaedia_5", '"infected": '),
    "lesions": (OF_RUNS, f"lesions/tiny/{RUN}.json", read_lesions, "lesions, ", '"lesions": '),
    "false-alarms": (OF_RUNS, f"false-alarms/tiny/{RUN}.json", read_false_alarms, "healed slices", '"healed": '),
}  # fmt: skip


def measure(what: str, slices: Path, results: Path, runs: Path) -> int:
    places = ["--slices", str(slices), "--results", str(results)]
    arguments = MEASURED[what][0] if what in MEASURED else OF_RUNS
    return main(["measure", what, *arguments, *places, *(["--runs", str(runs)] if RUN in arguments else [])])


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("what", MEASURED)
def test_a_record_is_written_read_and_refused_where_it_was_changed(what, trained, tmp_path, capsys):
    _, name, read, prints, value = MEASURED[what]
    shutil.copytree(trained.results, tmp_path, dirs_exist_ok=True)
    assert measure(what, trained.slices, tmp_path, trained.runs) == 0
    assert prints in capsys.readouterr().out
    path = tmp_path / name
    content = path.read_text()
    record = json.loads(content)
    assert record["digest"] == digest(record) and record["commit"] and record["versions"] and record["device"]
    assert len(read(tmp_path))
    assert value in content
    path.write_text(content.replace(value, value + "1", 1))
    with pytest.raises(
        ValueError, match=f"changed after it was written; write it anew: chs-net measure {what}"
    ):
        read(tmp_path)
    path.write_text(content[:40])
    with pytest.raises(ValueError, match="is not a record"):
        read(tmp_path)
    if RUN not in name:
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"chs-net measure {what} --slices FOLDER writes it"):
            read(tmp_path)
        return
    record["run"] = "table4-bu"
    path.write_text(json.dumps(record | {"digest": digest(record)}))
    with pytest.raises(ValueError, match="says it is tiny/table4-bu; write it anew"):
        read(tmp_path)
    path.unlink()
    assert not len(read(tmp_path)), "nothing was measured"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("what", ["lesions", "false-alarms", "thresholds"])
def test_slices_or_what_a_run_left_of_another_training_are_refused(what, trained, store, tmp_path, capsys):
    table = (store / "slices.csv").read_text().splitlines()
    (store / "slices.csv").write_text("\n".join(table[:-1]) + "\n")
    assert measure(what, store, trained.results, trained.runs) == 1
    assert f"{store} is another store" in capsys.readouterr().err
    runs = Path(shutil.copytree(trained.runs, tmp_path / "runs"))
    for file in ("masks.npz", "weights.pt"):
        shutil.copy(runs / "tiny/table2-lungs" / file, runs / "tiny" / RUN / file)
    assert measure(what, trained.slices, trained.results, runs) == 1
    told = capsys.readouterr().err
    assert "other weights or data than" in told or "another shape" in told
    assert measure(what, trained.slices, tmp_path, trained.runs) == 1
    assert f"{RUN}.json: no such record; train the run" in capsys.readouterr().err
    assert main(["measure", what, *OF_RUNS, "--slices", "nowhere", "--results", str(trained.results)]) == 1


def test_what_is_committed_is_of_the_real_slices_and_of_a_commit():
    from replication.evidence.records import KNOWN_DATA

    for name, size in (("nearest-slice", 128), ("contrast", 256)):
        record = json.loads((ROOT / "results" / f"{name}.json").read_text())
        assert record["data"]["fingerprint"] in KNOWN_DATA and record["size"] == size
        assert not record["commit"].endswith("modified")
    assert len(read_contrast(ROOT / "results/contrast.json")) == 16
    with pytest.raises(FileNotFoundError, match="python -m benchmarks --device cuda"):
        read_benchmark(ROOT / "results", "cuda")
    for record in read_thresholds(ROOT / "results"):
        assert not str(record).count("/home/")
