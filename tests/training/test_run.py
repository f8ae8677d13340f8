"""One run: its record, its repetition, its resumption after a kill, and what it refuses."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chslib.metrics import SCORES, confusion, evaluate
from chslib.network import RAIUNet, contour_map, count_parameters
from replication import files
from replication.cli import main
from replication.data.slices.splits import make_split
from replication.data.slices.store import read_store
from replication.evidence.records import read_record
from replication.provenance import digest
from replication.training import fit, networks, predictions
from replication.training import run as train
from replication.training.batches import with_neighbours
from replication.training.grid import RUNS, get_run
from replication.training.profiles import PROFILES
from replication.training.recipe import RECIPES, AveragedWeights, cosine
from replication.training.state import State, run_state

pytestmark = pytest.mark.usefixtures("tiny")
FIRST, SECOND, BEYOND = "table2-lungs", "table2-infection", "beyond-unet"


def run(name: str, folder: Path, slices: Path) -> dict:
    """A run whose results and weights go below one folder."""
    return train.train_run(
        name, profile="tiny", slices=slices, results=folder / "results", runs=folder / "runs", progress=False
    )


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    """A copy of that folder which a test may change."""
    return Path(shutil.copytree(trained.folder, tmp_path / "trained"))


@pytest.fixture(scope="module")
def slices(tiny_store):
    """The store in memory, at the profile's size."""
    return read_store(tiny_store, size=32, progress=False)


def left(folder: Path, name: str, file: str) -> dict:
    """What a run left in its folder."""
    return torch.load(next((folder / "runs/tiny" / name).glob(file)), weights_only=True)


def timeless(record: dict) -> list[dict[str, float]]:
    """The history of a record without the seconds of each epoch."""
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in record["fit"]["history"]]


def begun(monkeypatch, name: str, folder: Path, slices: Path) -> tuple[torch.nn.Module, dict]:
    """The network that a run would train, and on what, without training it."""

    class Stop(Exception):
        pass

    def stop(self, datasets):
        raise Stop(self.task.network, datasets)

    with monkeypatch.context() as patch:
        patch.setattr(fit.Fitting, "fit", stop)
        with pytest.raises(Stop) as caught:
            run(name, folder, slices)
    return caught.value.args


# ---- the record --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FIRST, SECOND, BEYOND])
def test_the_record_says_what_was_trained_and_how_it_was_scored(name, trained, slices, tiny):
    record, folder = trained.records[name], trained.runs / "tiny" / name
    for path in (trained.results / "tiny" / f"{name}.json", folder / "record.json"):
        assert json.loads(path.read_text()) == record
    assert read_record(trained.results / "tiny" / f"{name}.json") == record
    config, history = record["config"], record["fit"]["history"]
    assert (config["name"], config["profile"], config["size"]) == (name, "tiny", 32)
    assert config["widths"] == list(tiny.widths) and config["learning_rate"] == 0.07
    assert config["data_fingerprint"] == record["data"]["fingerprint"] == slices.fingerprint
    assert record["versions"]["torch"] == torch.__version__ and record["device"] and record["commit"]
    assert record["wall_seconds"] > 0 and record["digest"] == digest(record) != digest({**record, "run": ""})
    assert record["fit"]["epochs"] == len(history) == tiny.max_epochs[config["target"]]
    assert record["fit"]["best_epoch"] == min(history, key=lambda epoch: epoch["val_loss"])["epoch"]
    assert history[1]["train_loss"] < history[0]["train_loss"]
    assert not list(trained.folder.rglob("*part*"))

    masks, hashes = predictions.load_masks(folder / "masks.npz")
    split = make_split(slices.table, protocol="slice", fold=0, seed=0)
    truth = (slices.lung if name == FIRST else slices.infection)[split.test]
    counts = confusion(torch.from_numpy(masks[split.test, 0]), torch.from_numpy(truth))
    table = slices.table.iloc[split.test]
    assert record["test"] == evaluate(counts, table["patient"].tolist())
    assert record["slices"] == [[i, *row] for i, row in zip(table["slice_id"], counts.tolist())]
    assert set(record["test"]["pooled"]) == set(SCORES)
    assert {p: n["slices"] for p, n in record["data"]["split"].items()} == {
        p: len(getattr(split, p)) for p in ("train", "validation", "test")
    }
    weights = hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest()
    assert record["weights_sha256"] == hashes["weights_sha256"] == weights
    assert hashes["fingerprint"] == slices.fingerprint


def test_what_was_left_is_the_best_epoch_s_and_makes_the_masks(trained, slices, tiny):
    network = networks.make_network(get_run(FIRST), tiny)
    path = trained.runs / "tiny" / FIRST / "weights.pt"
    assert networks.load_weights(network, path) == trained.records[FIRST]["weights_sha256"]
    masks = train.predict_masks(network, slices.ct[:, None], batch_size=4)
    assert np.array_equal(masks, predictions.load_masks(path.with_name("masks.npz"))[0])
    assert 0.1 < masks.mean() < 0.9 and trained.records[BEYOND]["test"]["pooled"]["dsc"] > 0.3, (
        "else little is tested"
    )
    (best,) = path.parent.glob("best-*.ckpt")
    assert best.name == f"best-epoch={trained.records[FIRST]['fit']['best_epoch'] - 1:03d}.ckpt"
    state = left(trained.folder, FIRST, "best-*.ckpt")["state_dict"]
    for key, tensor in left(trained.folder, FIRST, "weights.pt").items():
        assert torch.equal(tensor, state[f"network.{key}"])


def test_a_second_stage_names_what_fed_it_and_how_much_infection_that_left(trained, slices):
    record, sha = trained.records[SECOND], trained.records[FIRST]["weights_sha256"]
    assert record["first_stage"].items() >= {"run": FIRST, "weights_sha256": sha}.items()
    assert record["config"]["first_stage_weights"] == sha and trained.records[FIRST]["first_stage"] is None
    lungs, _ = predictions.load_masks(trained.runs / "tiny" / FIRST / "masks.npz")
    rows = [slices.table["slice_id"].tolist().index(row[0]) for row in record["slices"]]
    infected = slices.infection[rows] > 0
    expected = (infected & (lungs[rows, 0] > 0)).sum() / infected.sum()
    assert record["first_stage"]["infection_inside"]["test"] == pytest.approx(expected)


def test_a_run_whose_record_stands_is_not_trained_again(trained, tiny_store, monkeypatch):
    paths = {p: p.stat().st_mtime_ns for p in trained.folder.rglob("*")}
    monkeypatch.setattr(fit.Fitting, "fit", lambda *_: pytest.fail("trained again"))
    for name in (FIRST, SECOND):
        assert run(name, trained.folder, tiny_store) == trained.records[name]
    assert {p: p.stat().st_mtime_ns for p in trained.folder.rglob("*")} == paths


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results" / "run.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": 2, "b": object()})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError):
        files.write_json(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 1} and len(list(path.parent.iterdir())) == 1


def test_saved_masks_come_back_bit_for_bit(tmp_path):
    masks = np.random.default_rng(0).integers(0, 2, (3, 1, 5, 7), np.uint8)
    predictions.save_masks(tmp_path / "masks.npz", masks, fingerprint="f", weights_sha256="w")
    loaded, hashes = predictions.load_masks(tmp_path / "masks.npz")
    assert np.array_equal(loaded, masks) and hashes == {"fingerprint": "f", "weights_sha256": "w"}
    assert [p.name for p in tmp_path.iterdir()] == ["masks.npz"]


# ---- killed and started again ------------------------------------------------------------------


@pytest.mark.parametrize("name", [FIRST, BEYOND])
def test_a_killed_run_started_again_ends_with_the_weights_of_an_unbroken_one(
    name, trained, tmp_path, monkeypatch, capsys
):
    on_batch_end = fit.SegmentationTask.on_train_batch_end

    def kill(self, outputs, batch, batch_idx):
        on_batch_end(self, outputs, batch, batch_idx)
        if (self.current_epoch, batch_idx) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:  # a fork has it too
        patch.setattr(fit.SegmentationTask, "on_train_batch_end", kill)
        killed = multiprocessing.get_context("fork").Process(
            target=run, args=(name, tmp_path, trained.slices)
        )
        killed.start()
        killed.join()
    assert killed.exitcode == -signal.SIGKILL
    folder = tmp_path / "runs" / "tiny" / name
    assert (folder / "last.ckpt").is_file() and not (folder / "weights.pt").exists()
    assert not (tmp_path / "results").exists()

    record, unbroken = run(name, tmp_path, trained.slices), trained.records[name]
    assert f"resuming {name}" in capsys.readouterr().out
    ours, theirs = (left(where, name, "weights.pt") for where in (tmp_path, trained.folder))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    for key in ("weights_sha256", "test", "slices", "config", "data"):
        assert record[key] == unbroken[key], key
    assert timeless(record) == timeless(unbroken)


def test_a_run_stopped_early_and_killed_before_its_record_ends_the_same(
    tiny_store, tmp_path, tiny, monkeypatch
):
    loss = fit.segmentation_loss
    flat = lambda *batch: loss(*batch) if torch.is_grad_enabled() else torch.tensor(1.0)  # noqa: E731
    monkeypatch.setattr(fit, "segmentation_loss", flat)  # validation never improves
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(tiny, patience=1))
    unbroken = run(FIRST, tmp_path, tiny_store)
    assert unbroken["fit"]["stopped_early"] and unbroken["fit"]["best_epoch"] == 1
    last = left(tmp_path, FIRST, "last.ckpt")  # written behind each epoch, not only the best
    assert last["epoch"] == unbroken["fit"]["epochs"] - 1 == 1
    for file in (
        f"results/tiny/{FIRST}.json",
        f"runs/tiny/{FIRST}/weights.pt",
        f"runs/tiny/{FIRST}/masks.npz",
    ):
        (tmp_path / file).unlink()
    record = run(FIRST, tmp_path, tiny_store)
    assert record["weights_sha256"] == unbroken["weights_sha256"] and timeless(record) == timeless(unbroken)


def test_a_run_that_failed_says_so_until_it_succeeds_and_one_without_weights_is_trained_again(
    trained, copy, tiny_store, monkeypatch, capsys
):
    (copy / "runs").rename(copy / "elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr(fit.Fitting, "fit", lambda *_: (_ for _ in ()).throw(ValueError("no luck")))
        with pytest.raises(ValueError, match="no luck"):
            run(FIRST, copy, tiny_store)
    assert "training again" in capsys.readouterr().out
    where = {"profile": "tiny", "results": copy / "none", "runs": copy / "runs"}
    assert run_state(FIRST, **where) == State("failed", "ValueError: no luck")
    again, first = run(FIRST, copy, tiny_store), trained.records[FIRST]
    assert again["weights_sha256"] == first["weights_sha256"] and again["test"] == first["test"]
    assert run_state(FIRST, **where) == State("not run")


# ---- beyond the paper's recipe -----------------------------------------------------------------


def test_a_record_beyond_the_paper_s_recipe_says_so_and_one_of_it_does_not(trained, tiny):
    config = trained.records[BEYOND]["config"]
    assert config["recipe"] == "beyond" and config["passes"] == tiny.beyond_passes == 2
    assert config["augmentation"]["rotation"] > 0 and "cosine" in config["schedule"]
    assert config["weight_averaging"]["decay"] == RECIPES["beyond"].decay
    for name in (FIRST, SECOND):
        paper = trained.records[name]["config"]
        assert paper["augmentation"] is None
        assert not {"recipe", "passes", "schedule", "weight_averaging"} & set(paper)


def test_a_network_of_neighbouring_slices_is_trained_by_the_paper_s_recipe(
    tmp_path, tiny_store, slices, tiny, monkeypatch
):
    name = "beyond-context"
    network, datasets = begun(monkeypatch, name, tmp_path, tiny_store)
    channels, rows = with_neighbours(slices, 1), datasets["train"].indices
    image, _ = datasets["train"][0]
    assert image.shape == (3, 32, 32) and network.in_channels == 3
    assert torch.equal(image, torch.from_numpy(channels[rows[0]]).float() / 255)
    assert not np.array_equal(channels[:, 1], channels[:, 0])
    context, plain = (
        networks.run_config(get_run(n), tiny, networks.make_network(get_run(n), tiny))
        for n in (name, "table4-bu")
    )
    differ = {k for k in {*context, *plain} if context.get(k) != plain.get(k)}
    assert differ == {"name", "recipe", "context", "passes", "parameters"}
    assert (context["context"], context["passes"]) == (1, 1)
    record = run(name, tmp_path, tiny_store)
    last = left(tmp_path, name, "last.ckpt")
    assert last["global_step"] == record["fit"]["epochs"] * -(-len(rows) // tiny.batch_size)
    assert "AveragedWeights" not in last["callbacks"] and not last["lr_schedulers"]


def test_what_is_kept_is_the_average_of_the_weights_that_validation_saw(trained):
    checkpoint = left(trained.folder, BEYOND, "best-*.ckpt")
    kept, own = left(trained.folder, BEYOND, "weights.pt"), checkpoint["state_dict"]
    average = checkpoint["callbacks"]["AveragedWeights"]["average"]
    assert kept.keys() == average.keys() and all(torch.equal(kept[k], average[k]) for k in kept)
    differ = {k for k in kept if not torch.equal(kept[k], own[f"network.{k}"])}
    assert {k for k in kept if k.endswith(("weight", "bias", "running_mean", "running_var"))} <= differ
    assert not {k for k in differ if k.endswith("num_batches_tracked")}


def test_the_average_is_that_of_every_step_and_leaves_training_alone():
    network = torch.nn.BatchNorm1d(2)
    task, callback, expected = SimpleNamespace(network=network, device="cpu"), AveragedWeights(decay=0.6), 1.0
    callback.on_train_start(None, task)
    for step in range(1, 9):
        with torch.no_grad():
            network.weight.fill_(step)
            network.num_batches_tracked.fill_(step)
        callback.on_train_batch_end(SimpleNamespace(global_step=step), task, None, None, step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    callback.on_validation_start(None, task)
    assert torch.allclose(network.weight, torch.tensor(expected)) and expected < 8
    assert network.num_batches_tracked == 8
    callback.on_validation_end(None, task)
    assert torch.equal(network.weight, torch.full((2,), 8.0))


def test_the_learning_rate_falls_to_nothing_in_a_cosine(trained, tiny):
    last = left(trained.folder, BEYOND, "last.ckpt")
    passed = 2 * trained.records[BEYOND]["data"]["split"]["train"]["slices"]
    steps = tiny.max_epochs["infection"] * -(-passed // tiny.batch_size)
    assert last["global_step"] == last["lr_schedulers"][0]["last_epoch"] == steps
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    schedule = cosine(adam, steps=4)["lr_scheduler"]["scheduler"]
    rates = [schedule.get_last_lr()[0]]
    for _ in range(4):
        adam.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert rates == pytest.approx([0.2, 0.1 + 0.1 / 2**0.5, 0.1, 0.1 - 0.1 / 2**0.5, 0])


# ---- the second stage --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels"), [(SECOND, 1), ("alt-concat-infection", 2), ("alt-truth-infection", 1)]
)
def test_the_second_stage_sees_contour_maps_of_the_lungs_that_feed_it(
    name, channels, copy, tiny_store, slices, monkeypatch
):
    lungs = np.zeros((18, 1, 32, 32), np.uint8)
    lungs[:, :, 4:20, 3:14] = 1  # neither the truth nor what the first stage learnt
    path = copy / "runs" / "tiny" / FIRST / "masks.npz"
    predictions.save_masks(path, lungs, fingerprint=slices.fingerprint, weights_sha256="other")
    (copy / "results" / "tiny" / f"{SECOND}.json").unlink()
    network, datasets = begun(monkeypatch, name, copy, tiny_store)
    fed = torch.from_numpy(slices.lung[:, None] if "truth" in name else lungs).float()
    ct = torch.from_numpy(slices.ct[:, None]) / 255
    maps = contour_map(ct, fed, cascade="concat" if channels == 2 else "mask")
    assert maps.shape[1] == network.in_channels == channels
    for dataset in datasets.values():
        for k, i in enumerate(dataset.indices):
            image, mask = dataset[k]
            assert torch.equal(image, maps[i]) and np.array_equal(mask[0], slices.infection[i])
            assert channels == 2 or not image[0][fed[i, 0] == 0].any()
    assert sum(map(len, datasets.values())) == len(slices)


# ---- what is refused ---------------------------------------------------------------------------


def other_slice(copy: Path, store: Path, *_) -> None:
    (store / "ct/coronacases_0_0.png").write_bytes((store / "ct/coronacases_0_1.png").read_bytes())


def without_record(copy: Path, *_) -> None:
    (copy / "results/tiny" / f"{FIRST}.json").unlink()


def junk(copy: Path, *_) -> None:
    without_record(copy)
    (copy / "runs/tiny" / FIRST / "last.ckpt").write_text("junk")


REFUSED = {  # what happened -> the run asked for, what is done before, changes of the profile, what is said
    "no first stage": (SECOND, lambda copy, *_: shutil.rmtree(copy / "runs"), {}, f"masks.npz is missing.*{FIRST} predicts; train that run first"),
    "a first stage on other slices": (SECOND, other_slice, {}, f"holds predictions on other data.*train {FIRST} on this store"),
    "a record of other slices": (FIRST, other_slice, {}, f"{FIRST}.json is the record of another configuration or of other data.*move it away"),
    "a record of another rate": (FIRST, lambda *_: None, {"learning_rate": 1e-3}, "is the record of another configuration"),
    "a record of more epochs": (FIRST, lambda *_: None, {"max_epochs": {"lungs": 9, "infection": 9}}, "is the record of another configuration"),
    "a checkpoint of other widths": (FIRST, without_record, {"widths": (5, 6, 9)}, r"last.ckpt belongs to another configuration.*widths.*\[4, 6.*Delete"),
    "a checkpoint that is none": (FIRST, junk, {}, rf"last\.ckpt cannot be read .*delete it to train {FIRST}"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_belong_together_is_refused_and_nothing_overwritten(
    what, copy, store, tiny, monkeypatch
):
    name, before, change, told = REFUSED[what]
    before(copy, store)
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(tiny, **change))
    held = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        run(name, copy, store)
    assert {p: p.read_bytes() for p in held} == held


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda state: RAIUNet(widths=(4, 7)).state_dict(), r"another shape: .* is .*7.* there and .*6.*widths \(4, 6\)"),
        (lambda state: state | {"more": torch.zeros(2)}, r"more is \(2,\) there and absent here"),
        (lambda state: {k: v for k, v in state.items() if k != "head.bias"}, r"head.bias is absent there and \(1,\) here"),
        (lambda state: [1, 2], "is not a file of weights"),
        (b"", "is not a file of weights"),
        (b"hello", "is not a file of weights"),
        (None, "is missing; train its run first"),
    ],
)  # fmt: skip
def test_weights_of_another_network_or_none_are_refused_by_what_differs(content, told, tmp_path):
    path, network = tmp_path / "weights.pt", RAIUNet(widths=(4, 6))
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save(content(network.state_dict()), path)
    with pytest.raises((ValueError, FileNotFoundError), match=f"weights.pt .*{told}"):
        networks.load_weights(network, path)


@pytest.mark.parametrize(
    ("value", "step", "told"),
    [
        ("nan", 1, "epoch 1, step 1: nan"),
        ("inf", 1, "epoch 1, step 1: inf"),
        ("nan", 2, "epoch 1 ended with"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_without_a_record(
    value, step, told, tiny_store, tmp_path, monkeypatch
):
    loss, calls = fit.segmentation_loss, []

    def broken(logits, mask):
        calls.append(1)
        return loss(logits, mask) * (float(value) if len(calls) == step else 1)

    monkeypatch.setattr(fit, "segmentation_loss", broken)
    with pytest.raises(ValueError, match=f"not finite .{told}.*broken slice"):
        run(FIRST, tmp_path, tiny_store)
    assert not (tmp_path / "results").exists()
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


# ---- the command, peers, evaluation ------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["table9", "--profile", "tiny", "--slices", "nowhere"], "error: Unknown run 'table9'"),
        ([FIRST, "--profile", "big", "--slices", "nowhere"], "error: Unknown profile 'big'"),
        ([FIRST, "--profile", "tiny", "--slices", "nowhere"], "error: nowhere: no such folder"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message) and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_scores_of_a_run_and_where_its_figures_are(trained, copy, tiny_store, capsys):
    folders = ["--results", str(copy / "results"), "--runs", str(copy / "runs")]
    assert main(["train", FIRST, "--profile", "tiny", "--slices", str(tiny_store), *folders]) == 0
    out = capsys.readouterr().out
    assert "18 slices of 6 patients; random slices, patients on both sides" in out.splitlines()[0]
    dsc = trained.records[FIRST]["test"]["pooled"]["dsc"]
    assert f"{FIRST} (tiny): accuracy " in out and f"dsc {dsc:.3f}" in out and "best of 3 epochs" in out
    figures = [Path(line) for line in out.splitlines() if line.endswith(".png")]
    assert figures and all(path.is_file() and copy in path.parents for path in figures)


@pytest.mark.parametrize("arm", ["unetpp", "attention-unet", "infnet", "miniseg"])
def test_a_peer_is_narrow_in_a_narrow_profile_and_says_whose_loss_it_has(arm, tiny):
    run = next(r for r in RUNS.values() if r.arm == arm)
    narrow = networks.make_network(run, tiny)
    assert count_parameters(narrow) < 150_000
    config = networks.run_config(run, tiny, narrow)
    assert (config["loss"] == f"its own ({arm})") == (arm in ("infnet", "miniseg")) and config["arm"] == arm


def test_evaluation_is_added_to_the_record_from_the_predictions_left(trained, copy, tiny_store, tmp_path):
    where = {"profile": "tiny", "slices": tiny_store, "runs": copy / "runs"}
    with pytest.raises(FileNotFoundError, match="train table2-lungs first"):
        train.evaluate_run(FIRST, **where, results=tmp_path / "none")
    where["results"], before = copy / "results", trained.records[FIRST]
    after = train.evaluate_run(FIRST, **where)
    assert "evaluation" not in before and after["evaluation"] and after["digest"] == digest(after)
    same = {k: v for k, v in after.items() if k not in ("evaluation", "digest")}
    assert same == {k: v for k, v in before.items() if k != "digest"}
    path = copy / "results" / "tiny" / f"{FIRST}.json"
    assert json.loads(path.read_text()) == after == train.evaluate_run(FIRST, **where)
    files.write_json(path, {**before, "weights_sha256": "0" * 64})
    with pytest.raises(ValueError, match="belongs to other weights or data"):
        train.evaluate_run(FIRST, **where)
