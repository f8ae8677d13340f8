"""What every part of the benchmark shares: jobs timed in turns, networks by name, their arithmetic."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.worker import Job
from chslib.network import build_network
from replication.peers import PEERS, build_peer

ROOT = Path(__file__).resolve().parent.parent


def time_in_turns(jobs: list[Job], *, rounds: int = 2, profile: bool = False) -> list[dict[str, Any]]:
    """Each job in processes of its own, in turns; the steps of all rounds, and the largest memory."""
    results: list[dict[str, Any]] = [{} for _ in jobs]
    for turn in range(rounds):
        for job, result in zip(jobs, results, strict=True):
            options = json.dumps({"job": vars(job), "profile": profile and turn == 0})
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.worker", options],
                cwd=ROOT,
                capture_output=True,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
            )
            if done.returncode:
                result["failed"] = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
                print(f"  {job}: failed: {result['failed']}", flush=True)
                continue
            found = json.loads(done.stdout.strip().splitlines()[-1])
            print(
                f"  {job}: {1e3 * float(np.median(found['seconds'])) / job.batch:.1f} ms a slice", flush=True
            )
            result.setdefault("seconds", []).extend(found["seconds"])
            if found["memory_mib"] is not None:
                result["memory_mib"] = max(result.get("memory_mib", 0), found["memory_mib"])
            result.update({k: found[k] for k in ("profile",) if k in found})
    for job, result in zip(jobs, results, strict=True):
        result["job"] = vars(job)
        if "seconds" in result:
            result["ms_per_slice"] = 1e3 * float(np.median(result["seconds"])) / job.batch
    return results


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope of a straight line through the logarithms: y grows as x to this power."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def network_of(name: str) -> torch.nn.Module:
    return build_peer(name) if name in PEERS and name != "bu" else build_network(name)


def forward_flops(name: str, size: int) -> int:
    """Operations of one slice forward, as torch counts them (a multiplication and an addition are two)."""
    network = network_of(name).eval().to(memory_format=torch.channels_last)
    x = torch.zeros(1, 1, size, size).contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(x)
    return counter.get_total_flops()
