"""One run: its record, its repetition, its resumption after a kill, and what it refuses."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chslib.metrics import SCORES, confusion, evaluate
from chslib.network import RAIUNet, contour_map, count_parameters
from replication.cli import main
from replication.data.slices.splits import make_split
from replication.data.slices.store import read_store
from replication.evidence.records import read_record
from replication.provenance import digest
from replication.training import fit, networks, predictions
from replication.training import run as train
from replication.training.batches import with_neighbours
from replication.training.grid import RUNS, get_run
from replication.training.profiles import PROFILES, Profile
from replication.training.recipe import RECIPES, AveragedWeights, cosine
from replication.training.state import State, run_state

FIRST, SECOND, BEYOND = "table2-lungs", "table2-infection", "beyond-unet"
TINY = Profile(
    name="tiny",
    size=32,
    widths=(4, 6, 9),
    batch_size=2,
    learning_rate=0.1,  # else three epochs would predict nothing, and nothing would be compared
    max_epochs={"lungs": 3, "infection": 2},
    worth="nothing",
)
# Trains a run, and kills itself without warning in the second step of the second epoch.
DRIVER = """
import os, signal, sys
from replication.cli import main
from replication.training import fit, networks, predictions
from replication.training import fit
from replication.training import run as train
from replication.training.profiles import PROFILES, Profile

PROFILES["tiny"] = Profile(**{profile!r})
on_batch_end = fit.SegmentationTask.on_train_batch_end

def kill(self, outputs, batch, batch_idx):
    on_batch_end(self, outputs, batch, batch_idx)
    if (self.current_epoch, batch_idx) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)

fit.SegmentationTask.on_train_batch_end = kill
train.train_run({run!r}, profile="tiny", slices={slices!r}, results={results!r}, runs={runs!r}, progress=False)
"""


@pytest.fixture(scope="module", autouse=True)
def tiny_profile():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "tiny", TINY)
        yield


def run(name: str, folder: Path, slices: Path) -> dict:
    """A run whose results and weights go below one folder."""
    return train.train_run(
        name, profile="tiny", slices=slices, results=folder / "results", runs=folder / "runs", progress=False
    )


@pytest.fixture(scope="module")
def trained(tiny_profile, tiny_store, tmp_path_factory) -> SimpleNamespace:
    """Both stages, unbroken; tests read the folder only."""
    folder = tmp_path_factory.mktemp("trained")
    records = {name: run(name, folder, tiny_store) for name in (FIRST, SECOND, BEYOND)}
    return SimpleNamespace(folder=folder, records=records)


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    """A copy of that folder which a test may change."""
    return Path(shutil.copytree(trained.folder, tmp_path / "trained"))


def weights_of(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / "runs" / "tiny" / name / "weights.pt", weights_only=True)


def timeless(record: dict) -> list[dict[str, float]]:
    """The history of a record without the seconds of each epoch."""
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in record["fit"]["history"]]


def forbid_training(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(fit.Fitting, "fit", refuse)


def datasets_of(monkeypatch, name: str, folder: Path, slices: Path) -> dict:
    """What a run would be trained on, without training it."""

    class Stop(Exception):
        pass

    def stop(_, datasets):
        raise Stop(datasets)

    monkeypatch.setattr(fit.Fitting, "fit", stop)
    with pytest.raises(Stop) as caught:
        run(name, folder, slices)
    return caught.value.args[0]


# ---- the record --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_the_record_is_whole_and_says_where_its_numbers_come_from(name, trained, tiny_store):
    record = trained.records[name]
    path = trained.folder / "results" / "tiny" / f"{name}.json"
    assert json.loads(path.read_text()) == record
    config = record["config"]
    assert (config["name"], config["profile"], config["size"]) == (name, "tiny", 32)
    assert config["widths"] == list(TINY.widths) and config["learning_rate"] == 0.1
    fingerprint = read_store(tiny_store, size=32, progress=False).fingerprint
    assert config["data_fingerprint"] == record["data"]["fingerprint"] == fingerprint
    assert record["versions"]["torch"] == torch.__version__ and record["device"] and record["commit"]
    assert record["wall_seconds"] > 0 and record["fit"]["epochs"] == TINY.max_epochs[config["target"]]
    assert len(record["fit"]["history"]) == record["fit"]["epochs"]
    best = min(record["fit"]["history"], key=lambda epoch: epoch["val_loss"])
    assert record["fit"]["best_epoch"] == best["epoch"]
    assert record["digest"] == digest(record) != digest({**record, "commit": "another"})
    assert not list(trained.folder.rglob("*part*"))


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_the_scores_are_those_of_the_saved_masks_on_the_test_slices(name, trained, tiny_store):
    record, folder = trained.records[name], trained.folder / "runs" / "tiny" / name
    masks, hashes = train.load_masks(folder / "masks.npz")
    store = read_store(tiny_store, size=32, progress=False)
    split = make_split(store.table, protocol="slice", fold=0, seed=0)
    truth = (store.lung if name == FIRST else store.infection)[split.test]
    counts = confusion(torch.from_numpy(masks[split.test, 0]), torch.from_numpy(truth))
    table = store.table.iloc[split.test]
    assert record["test"] == evaluate(counts, table["patient"].tolist())
    assert record["slices"] == [[i, *row] for i, row in zip(table["slice_id"], counts.tolist())]
    assert set(record["test"]["pooled"]) == set(SCORES)
    assert {p: n["slices"] for p, n in record["data"]["split"].items()} == {
        p: len(getattr(split, p)) for p in ("train", "validation", "test")
    }
    weights = hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest()
    assert record["weights_sha256"] == hashes["weights_sha256"] == weights
    assert hashes["fingerprint"] == store.fingerprint


def test_the_saved_weights_make_the_saved_masks(trained, tiny_store):
    network = networks.make_network(get_run(FIRST), TINY)
    path = trained.folder / "runs" / "tiny" / FIRST / "weights.pt"
    assert networks.load_weights(network, path) == trained.records[FIRST]["weights_sha256"]
    store = read_store(tiny_store, size=32, progress=False)
    masks = train.predict_masks(network, store.ct[:, None], batch_size=4)
    assert np.array_equal(masks, train.load_masks(path.with_name("masks.npz"))[0])


def test_the_weights_are_those_of_the_best_epoch(trained):
    folder = trained.folder / "runs" / "tiny" / FIRST
    (best,) = folder.glob("best-*.ckpt")
    assert best.name == f"best-epoch={trained.records[FIRST]['fit']['best_epoch'] - 1:03d}.ckpt"
    state = torch.load(best, weights_only=True)["state_dict"]
    for key, tensor in weights_of(trained.folder, FIRST).items():
        assert torch.equal(tensor, state[f"network.{key}"])
    losses = [epoch["train_loss"] for epoch in trained.records[FIRST]["fit"]["history"]]
    assert losses[-1] < losses[0]


def test_a_record_in_a_few_lines_has_its_scores(trained):
    record = trained.records[FIRST]
    text = train.summary(record)
    assert text.startswith(f"{FIRST} (tiny): accuracy ") and "best of 3 epochs" in text
    assert f"dsc {record['test']['pooled']['dsc']:.3f}" in text


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_run_whose_record_stands_is_not_trained_again(name, trained, tiny_store, monkeypatch):
    files = {p: p.stat().st_mtime_ns for p in trained.folder.rglob("*")}
    forbid_training(monkeypatch)
    assert run(name, trained.folder, tiny_store) == trained.records[name]
    assert {p: p.stat().st_mtime_ns for p in trained.folder.rglob("*")} == files


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results" / "run.json"
    train.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        train.write_json(path, {"a": 2, "b": object()})
    assert json.loads(path.read_text()) == {"a": 1}

    def crash(*_):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError):
        train.write_json(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 1}


# ---- killed and started again ------------------------------------------------------------------


@pytest.mark.parametrize("name", [FIRST, BEYOND])
def test_a_killed_run_started_again_ends_with_the_weights_of_an_unbroken_one(
    name, trained, tiny_store, tmp_path, capsys
):
    paths = {key: str(tmp_path / key) for key in ("results", "runs")}
    driver = tmp_path / "driver.py"
    driver.write_text(
        DRIVER.format(profile=dataclasses.asdict(TINY), run=name, slices=str(tiny_store), **paths)
    )
    killed = subprocess.run([sys.executable, driver], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "runs" / "tiny" / name
    assert (folder / "last.ckpt").is_file() and not (folder / "weights.pt").exists()
    assert not (tmp_path / "results").exists()

    record, unbroken = run(name, tmp_path, tiny_store), trained.records[name]
    assert f"resuming {name}" in capsys.readouterr().out
    ours, theirs = weights_of(tmp_path, name), weights_of(trained.folder, name)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    for key in ("weights_sha256", "test", "slices", "config", "data"):
        assert record[key] == unbroken[key], key
    assert timeless(record) == timeless(unbroken)


def test_a_run_stopped_early_and_killed_before_its_record_ends_the_same(tiny_store, tmp_path, monkeypatch):
    loss = fit.segmentation_loss
    flat = lambda *batch: loss(*batch) if torch.is_grad_enabled() else torch.tensor(1.0)  # noqa: E731
    monkeypatch.setattr(fit, "segmentation_loss", flat)  # validation never improves
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(TINY, patience=1))
    unbroken = run(FIRST, tmp_path, tiny_store)
    assert unbroken["fit"]["stopped_early"] and unbroken["fit"]["best_epoch"] == 1
    folder = tmp_path / "runs" / "tiny" / FIRST
    last = torch.load(folder / "last.ckpt", weights_only=True)  # written behind each epoch, not only the best
    assert last["epoch"] == unbroken["fit"]["epochs"] - 1 == 1
    for path in (
        tmp_path / "results" / "tiny" / f"{FIRST}.json",
        folder / "weights.pt",
        folder / "masks.npz",
    ):
        path.unlink()
    record = run(FIRST, tmp_path, tiny_store)
    assert record["weights_sha256"] == unbroken["weights_sha256"]
    assert timeless(record) == timeless(unbroken)


def test_the_order_of_slices_is_fixed_by_seed_and_epoch():
    sampler, again = fit.EpochShuffle(20, seed=1), fit.EpochShuffle(20, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    again.set_epoch(2)
    assert list(again) == orders[2] and len(again) == 20
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert list(fit.EpochShuffle(20, seed=2)) != orders[0]


# ---- beyond the paper's recipe -----------------------------------------------------------------


def test_a_record_beyond_the_paper_s_recipe_says_so_and_one_of_it_does_not(trained):
    config = trained.records[BEYOND]["config"]
    assert config["recipe"] == "beyond" and config["passes"] == TINY.beyond_passes == 2
    assert config["augmentation"]["rotation"] > 0 and "cosine" in config["schedule"]
    assert config["weight_averaging"]["decay"] == RECIPES["beyond"].decay
    assert read_record(trained.folder / "results" / "tiny" / f"{BEYOND}.json") == trained.records[BEYOND]
    for name in (FIRST, SECOND):
        paper = trained.records[name]["config"]
        assert paper["augmentation"] is None
        assert not {"recipe", "passes", "schedule", "weight_averaging"} & set(paper)


def test_a_network_of_neighbouring_slices_is_trained_by_the_paper_s_recipe(monkeypatch, tmp_path, tiny_store):
    name = "beyond-context"
    datasets = datasets_of(monkeypatch, name, tmp_path, tiny_store)
    store = read_store(tiny_store, size=32, progress=False)
    channels = with_neighbours(store, 1)
    rows = datasets["train"].indices
    image, _ = datasets["train"][0]
    assert image.shape == (3, 32, 32) and torch.equal(
        image, torch.from_numpy(channels[rows[0]]).float() / 255
    )
    assert not np.array_equal(channels[:, 1], channels[:, 0])
    network = networks.make_network(get_run(name), TINY)
    assert network.in_channels == 3
    context, plain = (
        networks.run_config(get_run(n), TINY, networks.make_network(get_run(n), TINY))
        for n in (name, "table4-bu")
    )
    differ = {k for k in {*context, *plain} if context.get(k) != plain.get(k)}
    assert differ == {"name", "recipe", "context", "passes", "parameters"}
    assert (context["context"], context["passes"]) == (1, 1)


def test_no_epoch_of_it_is_longer_and_no_weight_averaged(tmp_path, tiny_store):
    record = run("beyond-context", tmp_path, tiny_store)
    last = torch.load(tmp_path / "runs" / "tiny" / "beyond-context" / "last.ckpt", weights_only=True)
    slices = record["data"]["split"]["train"]["slices"]
    assert last["global_step"] == record["fit"]["epochs"] * -(-slices // TINY.batch_size)
    assert "AveragedWeights" not in last["callbacks"] and not last["lr_schedulers"]


def test_what_is_kept_is_the_average_of_the_weights_that_validation_saw(trained):
    folder = trained.folder / "runs" / "tiny" / BEYOND
    checkpoint = torch.load(next(folder.glob("best-*.ckpt")), weights_only=True)
    kept, own = weights_of(trained.folder, BEYOND), checkpoint["state_dict"]
    average = checkpoint["callbacks"]["AveragedWeights"]["average"]
    assert kept.keys() == average.keys() and all(torch.equal(kept[k], average[k]) for k in kept)
    differ = {k for k in kept if not torch.equal(kept[k], own[f"network.{k}"])}
    assert {k for k in kept if k.endswith(("weight", "bias", "running_mean", "running_var"))} <= differ
    assert not {k for k in differ if k.endswith("num_batches_tracked")}


def test_the_average_is_that_of_every_step_and_leaves_training_alone():
    network = torch.nn.BatchNorm1d(2)
    task, callback, weights = SimpleNamespace(network=network, device="cpu"), AveragedWeights(decay=0.6), []
    callback.on_train_start(None, task)
    for step in range(1, 9):
        with torch.no_grad():
            network.weight.fill_(step)
            network.num_batches_tracked.fill_(step)
        callback.on_train_batch_end(SimpleNamespace(global_step=step), task, None, None, step)
        weights.append((step, min(0.6, (1 + step) / (10 + step))))
    expected = 1.0
    for value, decay in weights:
        expected = decay * expected + (1 - decay) * value
    callback.on_validation_start(None, task)
    assert torch.allclose(network.weight, torch.tensor(expected)) and expected < 8
    assert network.num_batches_tracked == 8
    callback.on_validation_end(None, task)
    assert torch.equal(network.weight, torch.full((2,), 8.0))


def test_the_learning_rate_falls_to_nothing_in_a_cosine(trained):
    folder = trained.folder / "runs" / "tiny" / BEYOND
    last = torch.load(folder / "last.ckpt", weights_only=True)
    epochs = TINY.max_epochs["infection"]
    steps = epochs * -(-2 * trained.records[BEYOND]["data"]["split"]["train"]["slices"] // TINY.batch_size)
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


def test_the_second_stage_sees_nothing_outside_the_predicted_lungs(copy, tiny_store, monkeypatch):
    store = read_store(tiny_store, size=32, progress=False)
    lungs = np.zeros((18, 1, 32, 32), np.uint8)
    lungs[:, :, 4:20, 3:14] = 1  # neither the truth nor what the first stage learnt
    path = copy / "runs" / "tiny" / FIRST / "masks.npz"
    predictions.save_masks(path, lungs, fingerprint=store.fingerprint, weights_sha256="other")
    (copy / "results" / "tiny" / f"{SECOND}.json").unlink()
    datasets = datasets_of(monkeypatch, SECOND, copy, tiny_store)
    for dataset in datasets.values():
        for k, i in enumerate(dataset.indices):
            (image,), (mask,) = (part.numpy() for part in dataset[k])
            inside = lungs[i, 0].astype(bool)
            assert not image[~inside].any()
            assert np.array_equal(image[inside], store.ct[i][inside].astype(np.float32) / 255)
            assert np.array_equal(mask, store.infection[i])
    assert sum(map(len, datasets.values())) == len(store)


def test_the_record_of_a_second_stage_names_the_weights_that_fed_it(trained):
    sha = trained.records[FIRST]["weights_sha256"]
    record = trained.records[SECOND]
    assert record["first_stage"].items() >= {"run": FIRST, "weights_sha256": sha}.items()
    assert record["config"]["first_stage_weights"] == sha
    assert trained.records[FIRST]["first_stage"] is None


@pytest.mark.parametrize("cascade", ["mask", "concat"])
def test_stored_contour_maps_are_those_of_the_cascade(cascade, tiny_store):
    store = read_store(tiny_store, size=32, progress=False)
    lungs = store.lung[:, None]
    ours = predictions.second_stage_inputs(store, lungs, cascade=cascade)
    literal = contour_map(
        torch.from_numpy(store.ct[:, None]) / 255, torch.from_numpy(lungs).float(), cascade=cascade
    )
    assert ours.dtype == np.uint8 and torch.equal(torch.from_numpy(ours) / 255, literal)


def test_a_concatenated_second_stage_has_two_input_channels():
    concat = dataclasses.replace(get_run(SECOND), cascade="concat")
    assert networks.make_network(concat, TINY).in_channels == 2
    assert networks.make_network(get_run(SECOND), TINY).in_channels == 1


def test_a_second_stage_without_its_first_is_refused(tmp_path, tiny_store):
    with pytest.raises(
        FileNotFoundError, match=f"masks.npz is missing.*{FIRST} predicts; train that run first"
    ):
        run(SECOND, tmp_path, tiny_store)


def test_a_second_stage_on_other_data_than_its_first_is_refused(copy, store):
    (store / "ct" / "coronacases_0_0.png").write_bytes((store / "ct" / "coronacases_0_1.png").read_bytes())
    with pytest.raises(
        ValueError, match=f"masks.npz holds predictions on other data.*train {FIRST} on this store"
    ):
        run(SECOND, copy, store)


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e-3}, {"max_epochs": {"lungs": 9, "infection": 9}}, {}]
)
def test_the_record_of_another_configuration_or_of_other_data_is_not_overwritten(
    change, copy, store, monkeypatch
):
    path = copy / "results" / "tiny" / f"{FIRST}.json"
    before = path.read_bytes()
    if not change:
        (store / "ct/coronacases_0_0.png").write_bytes((store / "ct/coronacases_0_1.png").read_bytes())
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(TINY, **change))
    forbid_training(monkeypatch)
    with pytest.raises(
        ValueError,
        match=f"{FIRST}.json is the record of another configuration or of other data.*move it away",
    ):
        run(FIRST, copy, store)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_width_is_refused_and_kept(copy, tiny_store, monkeypatch):
    (copy / "results" / "tiny" / f"{FIRST}.json").unlink()
    last = copy / "runs" / "tiny" / FIRST / "last.ckpt"
    before = last.read_bytes()
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(TINY, widths=(5, 6, 9)))
    with pytest.raises(
        ValueError, match=r"last.ckpt belongs to another configuration.*widths.*\[4, 6.*Delete"
    ):
        run(FIRST, copy, tiny_store)
    assert last.read_bytes() == before


def test_weights_of_another_network_are_refused_by_the_first_key_that_differs(tmp_path):
    path = tmp_path / "weights.pt"
    network = RAIUNet(widths=(4, 6))
    torch.save(RAIUNet(widths=(4, 7)).state_dict(), path)
    with pytest.raises(ValueError, match=r"another shape: .* is .*7.* there and .*6.*widths \(4, 6\)"):
        networks.load_weights(network, path)
    torch.save({**network.state_dict(), "more": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"more is \(2,\) there and absent here"):
        networks.load_weights(network, path)
    state = network.state_dict()
    state.pop("head.bias")
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"head.bias is absent there and \(1,\) here"):
        networks.load_weights(network, path)


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_file_that_holds_no_weights_is_refused(content, tmp_path):
    path = tmp_path / "weights.pt"
    if content is None:
        torch.save([1, 2], path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="weights.pt is not a file of weights"):
        networks.load_weights(RAIUNet(widths=(4, 6)), path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="weights.pt is missing; train its run first"):
        networks.load_weights(RAIUNet(widths=(4, 6)), path)


@pytest.mark.parametrize(
    "value, step, told",
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


def test_prediction_leaves_the_network_in_the_mode_it_was_in():
    network = RAIUNet(widths=(4, 6))
    inputs = np.zeros((3, 1, 8, 8), np.uint8)
    for training in (True, False):
        masks = train.predict_masks(network.train(training), inputs, batch_size=2)
        assert network.training is training
    assert masks.shape == (3, 1, 8, 8) and masks.dtype == np.uint8


def test_saved_masks_come_back_bit_for_bit(tmp_path):
    masks = np.random.default_rng(0).integers(0, 2, (3, 1, 5, 7), np.uint8)
    predictions.save_masks(tmp_path / "masks.npz", masks, fingerprint="f", weights_sha256="w")
    loaded, hashes = train.load_masks(tmp_path / "masks.npz")
    assert np.array_equal(loaded, masks) and hashes == {"fingerprint": "f", "weights_sha256": "w"}
    assert [p.name for p in tmp_path.iterdir()] == ["masks.npz"]


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


def test_the_command_prints_the_summary_of_a_run_and_where_its_figures_are(copy, trained, tiny_store, capsys):
    folders = ["--results", str(copy / "results"), "--runs", str(copy / "runs")]
    assert main(["train", FIRST, "--profile", "tiny", "--slices", str(tiny_store), *folders]) == 0
    out = capsys.readouterr().out
    assert "18 slices of 6 patients; random slices, patients on both sides" in out.splitlines()[0]
    assert train.summary(trained.records[FIRST]) in out
    figures = [Path(line) for line in out.splitlines() if line.endswith(".png")]
    assert figures and all(path.is_file() and copy in path.parents for path in figures)


def test_a_record_whose_weights_are_elsewhere_is_trained_again(trained, copy, tiny_store, capsys):
    (copy / "runs").rename(copy / "elsewhere")
    again, first = run(FIRST, copy, tiny_store), trained.records[FIRST]
    assert "training again" in capsys.readouterr().out
    assert again["weights_sha256"] == first["weights_sha256"] and again["test"] == first["test"]


def test_a_second_stage_says_how_much_infection_the_first_left_it(trained, tiny_store):
    record = trained.records[SECOND]
    store = read_store(tiny_store, size=TINY.size, progress=False)
    lungs, _ = train.load_masks(trained.folder / "runs/tiny" / FIRST / "masks.npz")
    rows = [store.table["slice_id"].tolist().index(row[0]) for row in record["slices"]]
    infected = store.infection[rows] > 0
    expected = (infected & (lungs[rows, 0] > 0)).sum() / infected.sum()
    assert record["first_stage"]["infection_inside"]["test"] == pytest.approx(expected)


def test_a_run_that_fails_says_so_until_it_succeeds(copy, tiny_store):
    where = {"results": copy / "results", "runs": copy / "runs"}
    (copy / "results" / "tiny" / f"{FIRST}.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit.Fitting, "fit", lambda *_: (_ for _ in ()).throw(ValueError("no luck")))
        with pytest.raises(ValueError, match="no luck"):
            run(FIRST, copy, tiny_store)
    assert run_state(FIRST, profile="tiny", **where) == State("failed", "ValueError: no luck")
    run(FIRST, copy, tiny_store)
    assert run_state(FIRST, profile="tiny", **where).status == "done"
    assert not (copy / "runs" / "tiny" / FIRST / "failed.json").exists()


@pytest.mark.parametrize("arm", ["unetpp", "attention-unet", "infnet", "miniseg"])
def test_a_peer_is_narrow_in_a_narrow_profile_and_says_whose_loss_it_has(arm):
    run = next(r for r in RUNS.values() if r.arm == arm)
    narrow = networks.make_network(run, TINY)
    assert count_parameters(narrow) < 150_000
    config = networks.run_config(run, TINY, narrow)
    assert (config["loss"] == f"its own ({arm})") == (arm in ("infnet", "miniseg")) and config["arm"] == arm


def test_the_true_lungs_can_feed_the_second_stage(tiny_store, tmp_path, monkeypatch):
    store = read_store(tiny_store, size=TINY.size, progress=False)
    fed = datasets_of(monkeypatch, "alt-truth-infection", tmp_path, tiny_store)["train"].inputs
    assert (fed[:, 0] == store.ct * store.lung).all() and (fed[:, 0] != store.ct).any()


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
    train.write_json(path, {**before, "weights_sha256": "0" * 64})
    with pytest.raises(ValueError, match="belongs to other weights or data"):
        train.evaluate_run(FIRST, **where)


def test_a_checkpoint_that_is_none_is_told_and_kept(tiny_store, tmp_path):
    last = tmp_path / "runs" / "tiny" / FIRST / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_text("junk")
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be read .*delete it to train table2-lungs"):
        run(FIRST, tmp_path, tiny_store)
    assert last.read_text() == "junk"
