"""The loop for a lent GPU, on a CPU: the same fit as the trainer's, one graph's worth of steps for many runs."""

import dataclasses
import functools

import pytest
import torch

from chslib import pooling
from chslib.network import build_network
from replication.training.fast_fit import FastFits, Steps, key_of
from replication.training.grid import get_run
from replication.training.profiles import PROFILES
from replication.training.run import train_run

pytestmark = pytest.mark.usefixtures("tiny")


def train(name, folder, slices, **how):
    places = {"results": folder / "results", "runs": folder / "runs"}
    return train_run(name, profile="tiny", slices=slices, progress=False, **places, **how)


def weights(folder, name):
    return torch.load(folder / "runs" / "tiny" / name / "weights.pt", weights_only=True)


@pytest.mark.parametrize("name", ["table2-lungs", "table3-miniseg", "beyond-unet"])
def test_it_fits_as_the_trainer_does(name, trained, tmp_path):
    where = trained.folder if name in trained.records else tmp_path / "usual"
    usual = trained.records.get(name) or train(name, where, trained.slices)
    fast = train(name, tmp_path / "fast", trained.slices, fit=FastFits())
    for a, b in zip(usual["fit"]["history"], fast["fit"]["history"], strict=True):
        assert a["epoch"] == b["epoch"]
        for key in ("train_loss", "val_loss", "val_dsc"):
            assert a[key] == pytest.approx(b[key], abs=2e-6), key
    assert fast["fit"]["best_epoch"] == usual["fit"]["best_epoch"] and fast["fit"]["form"] == "eager"
    ours, theirs = weights(tmp_path / "fast", name), weights(where, name)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-4)


def test_each_step_is_compiled_once(monkeypatch):
    """What a first trace makes and keeps, as the spectral operators, would have the second call compile again."""
    monkeypatch.setattr(pooling, "_OPERATORS", {})
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    compiler = functools.partial(torch.compile, backend=backend)
    monkeypatch.setattr(torch, "compile", compiler)
    network = build_network("full", widths=(4, 6)).to(memory_format=torch.channels_last)
    image, mask = torch.rand(2, 1, 16, 16), torch.zeros(2, 1, 16, 16)
    steps = Steps(network, (image, mask), learning_rate=1e-3, form="eager")
    forward, made = steps._compiled(), []
    for step, training in ((steps._train, True), (steps._evaluate, False)):
        network.train(training)
        for _ in range(3):
            step(forward, image, mask)
            made.append(len(graphs))
    assert made == [1, 1, 1, 2, 2, 2]


def test_a_second_run_of_one_process_is_what_it_is_alone(tiny_store, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(tiny, max_epochs={"lungs": 1}))
    shared = FastFits()
    train("table2-lungs", tmp_path / "shared", tiny_store, fit=shared)
    train("table2-lungs-seed1", tmp_path / "shared", tiny_store, fit=shared)
    train("table2-lungs-seed1", tmp_path / "alone", tiny_store, fit=FastFits())
    ours, alone = (weights(tmp_path / where, "table2-lungs-seed1") for where in ("shared", "alone"))
    assert all(torch.equal(ours[key], value) for key, value in alone.items())
    assert len(shared._steps) == 1


def test_it_stops_early_and_at_its_deadline(tiny_store, tiny, tmp_path, monkeypatch):
    late = train("table2-lungs", tmp_path, tiny_store, fit=FastFits(), deadline=0.0)["fit"]
    assert late["epochs"] == 1 and late["out_of_time"] and not late["stopped_early"]
    anew = train("table2-lungs", tmp_path, tiny_store, fit=FastFits())["fit"]
    assert anew["epochs"] == 3 and "out_of_time" not in anew
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(tiny, patience=1, learning_rate=0.0))
    stopped = train("table2-lungs-seed1", tmp_path, tiny_store, fit=FastFits())["fit"]
    assert stopped["epochs"] < 3 and stopped["stopped_early"] or stopped["best_epoch"] == stopped["epochs"]


def test_runs_share_a_graph_where_network_and_input_are_alike(tiny):
    keys = {
        name: key_of(get_run(name), tiny)
        for name in ("table2-lungs", "table2-infection-seed1", "table4-full")
    }
    assert len(set(keys.values())) == 1
    others = ("alt-concat-infection", "alt-relu-lungs", "table4-bu", "beyond-context")
    assert len({key_of(get_run(name), tiny) for name in (*others, "table2-lungs")}) == 5
