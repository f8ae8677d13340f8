"""The benchmark: its forms compute the same, its record is read as it stands, and a target can be missed."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as benchmark
from benchmarks import pooling, quality
from benchmarks.plain import plain
from benchmarks.worker import Job, run
from chslib.network import RAIUNet
from replication.analysis.speed import milliseconds, ratio, read_benchmark, targets

ROOT = Path(__file__).resolve().parents[2]


def timed(ms, **job):
    return {"job": {"network": "full", "form": "fast", "dtype": "float32", **job}, "ms_per_slice": ms}


def parts(**results):
    return {"parts": {name: {"result": result} for name, result in results.items()}}


@pytest.mark.parametrize("name", pooling.FORMS)
@pytest.mark.parametrize("side", [16, 64])
def test_every_form_of_spectral_pooling_is_one_map_with_its_gradients(name, side):
    assert pooling.error(pooling.FORMS[name], side) < 1e-12


def test_a_wrong_form_is_noticed():
    off = pooling.FORMS["rfft2, NCHW"][0]
    assert pooling.error((lambda x: 1.001 * off(x), "NCHW"), 16) > 1e-5


def test_the_plain_network_computes_what_the_fast_one_does():
    torch.manual_seed(0)
    network = RAIUNet(widths=(4, 6, 8, 10, 12)).double().eval()
    x = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        fast = network(x)
        torch.testing.assert_close(plain(network)(x), fast, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("pages", [None, {"VmRSS": 300.0, "VmHWM": 299.9}])
def test_one_job_is_timed_with_its_memory(pages, monkeypatch):
    """The kernel counts in batches: growth may read as a little less than nothing."""
    if pages:
        monkeypatch.setattr("benchmarks.worker._memory_mib", pages.get)
    threads = torch.get_num_threads()
    try:
        found = run(Job(network="miniseg", size=32, batch=2, threads=1, steps=2))
    finally:
        torch.set_num_threads(threads)
    assert len(found["seconds"]) == 2 and min(found["seconds"]) > 0
    assert found["memory_mib"] is None or found["memory_mib"] >= 0 and (not pages or found["memory_mib"] == 0)


def test_every_part_times_the_jobs_of_the_committed_record(monkeypatch):
    """And keeps what that keeps, so that one is written anew by the other."""
    monkeypatch.setattr(
        benchmark, "time_in_turns",
        lambda jobs, **_: [{"job": vars(job), "seconds": [1.0], "memory_mib": 1.0, "ms_per_slice": 1.0} for job in jobs],
    )  # fmt: skip
    for name in ("limits.peak_flops", "limits.copy_bandwidth", "forward_flops", "exponent"):
        monkeypatch.setattr(f"benchmarks.__main__.{name}", lambda *_, **__: 1.0)
    monkeypatch.setattr(benchmark.limits, "has_bfloat16", lambda _: False)
    parts = benchmark.Parts(Namespace(device="cpu", threads=2))
    committed = read_benchmark(ROOT / "results")["parts"]
    assert set(committed) <= set(benchmark.PARTS)
    for part in ("limits", "step", "batch", "profile", "inference", "growth", "peers", "gpu"):
        theirs, ours = committed[part]["result"], getattr(parts, part)()
        assert ours.keys() == theirs.keys(), part
        for key, rows in theirs.items():
            if isinstance(rows, list):
                jobs = [{k: row["job"][k] for k in theirs[key][0]["job"]} for row in ours[key]]
                assert jobs == [row["job"] for row in rows], part


def test_met_missed_and_not_run_are_told_apart():
    record = parts(
        step={"128": [timed(900, form="plain"), timed(300)], "256": [timed(900, form="plain"), timed(600)]},
        inference={"rows": [timed(300, network="chsnet", form="folded"), timed(250, network="bu")]},
    )
    found = targets(record)
    step = found[found.index.str.startswith("training step")]
    assert list(step["verdict"]) == ["met", "missed by a factor of 1.33"]
    inference = found[found.index.str.startswith("CHS-Net")]
    assert list(inference["verdict"]) == ["met", "not run"]  # 1.2 times the U-Net; no folded U-Net
    assert set(found[found.index.str.contains("GPU")]["verdict"]) == {"not run"}


def test_the_yardstick_of_two_curves_is_the_seeds_spread():
    def of(*losses):
        history = [{"train_loss": v, "val_loss": v, "val_dsc": v} for v in losses]
        return {"fit": {"history": history}, "data": {"slices": 4}, "test": {"pooled": {"dsc": 0.5}}}

    found = quality.curves(of(1.05, 0.9), {"seed0": of(1.0, 0.5), "seed1": of(1.1, 0.6)})
    assert found["within"]["train_loss"] == [True, False]
    verdict = targets(parts(quality=found)).iloc[-1]
    assert (verdict["found"], verdict["verdict"]) == ("3 of 6", "missed")


def test_a_job_that_failed_or_was_not_timed_gives_no_ratio():
    assert milliseconds([{"job": {"form": "fast"}, "failed": ["no memory"]}], form="fast") is None
    assert ratio(None, 2.0) is None and ratio(3.0, 2.0) == 1.5


def test_the_committed_record_is_whole():
    record = read_benchmark(ROOT / "results")
    assert {"pooling", "step", "inference", "growth", "peers"} <= set(record["parts"])
    assert not targets(record).empty
