"""One timing in a process of its own: its allocator, its threads and its peak memory.

    python -m benchmarks.worker '{"network": "full", "form": "plain", "size": 128, "batch": 8}'

prints one JSON object: seconds of each step, peak resident memory, threads.
"""

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.limits import timed
from benchmarks.plain import plain
from chslib.inference import folded
from chslib.network import ARMS, CHSNet, build_network
from replication.memory import keep_freed_memory
from replication.peers import build_peer
from replication.training.fit import training_loss

FORMS = {
    "plain": "textbook forms, default memory format and allocator",
    "plain, freed memory kept": "the same, with the allocator of the fast form",
    "fast, default allocator": "the fast form, with glibc's default allocator",
    "fast, NCHW": "the fast form in torch's default memory format",
    "fast": "what `replication.training.run` runs",
    "folded": "fast, with normalisation folded into convolutions: inference only",
}


@dataclass(frozen=True)
class Job:
    """What to time: one network, one form of it, one size."""

    network: str = "full"  # an arm of Tables 4-5, a peer of Table 3, or "chsnet"
    form: str = "fast"
    mode: str = "train"  # or "infer"
    size: int = 128
    batch: int = 8
    threads: int = 2
    steps: int = 3
    dtype: str = "float32"  # or "bfloat16", by autocast (folded networks: their weights too)
    device: str = "cpu"
    compile: bool = False
    repeatable: bool = False  # torch's deterministic algorithms, with which `replication.training.run` trains

    def build(self) -> nn.Module:
        """The network in its form, on its device."""
        torch.manual_seed(0)
        if self.network == "chsnet":
            network: nn.Module = CHSNet()
        else:
            network = build_network(self.network) if self.network in ARMS else build_peer(self.network)
        if self.form.startswith("plain"):
            return plain(network).to(self.device)
        if self.form == "folded":
            network = folded(network)
            network = network.bfloat16() if self.dtype == "bfloat16" else network
        nchw = self.form == "fast, NCHW"
        return network.to(self.device, memory_format=torch.contiguous_format if nchw else torch.channels_last)


def _profile(step: Any, steps: int) -> list[dict[str, Any]]:
    """Time by operation of whole steps, after two that are not counted."""
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as trace:
        for _ in range(steps):
            step()
    rows = [
        {"op": e.key, "calls": e.count / steps, "seconds": e.self_cpu_time_total / 1e6 / steps}
        for e in trace.key_averages()
        if e.self_cpu_time_total
    ]
    return sorted(rows, key=lambda row: -row["seconds"])[:30]


def _memory_mib(which: str) -> float | None:
    """Resident memory of this process, now (VmRSS) or at its peak (VmHWM); None where no /proc tells."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(float(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def _forget_peak() -> None:
    """Let the peak count from here: what importing once took is not the step's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def run(job: Job, *, profile: bool = False) -> dict[str, Any]:
    """Time a job in this process."""
    torch.set_num_threads(job.threads)
    if job.device == "cpu" and job.form in ("plain, freed memory kept", "fast", "fast, NCHW", "folded"):
        keep_freed_memory()
    if job.repeatable:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    network = job.build()
    if job.compile:
        network = torch.compile(network)
    channels_last = not job.form.startswith("plain") and job.form != "fast, NCHW"
    x = torch.rand(job.batch, 1, job.size, job.size, device=job.device)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    mask = (torch.rand_like(x) > 0.9).float()
    autocast = torch.autocast(job.device, dtype=torch.bfloat16, enabled=job.dtype == "bfloat16")
    if job.mode == "infer":
        network.eval()
        low = job.form == "folded" and job.dtype == "bfloat16"

        def step() -> Tensor | None:
            with torch.inference_mode(), autocast:
                network(x.bfloat16() if low else x)

    else:
        optimizer = torch.optim.Adam(network.parameters())

        def step() -> None:
            optimizer.zero_grad()
            with autocast:
                loss = training_loss(network, x, mask)
            loss.backward()
            optimizer.step()

    before = _memory_mib("VmRSS")
    _forget_peak()
    warm, seconds = ([timed(step, device=job.device) for _ in range(n)] for n in (2, job.steps))
    result = {
        "job": asdict(job),
        "warm_seconds": warm,
        "seconds": seconds,
        # The kernel counts pages in batches, so that what adds nothing may read as a little less than nothing.
        "memory_mib": None if before is None else max(0.0, _memory_mib("VmHWM") - before),
    }
    if job.device == "cuda":
        result["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    if profile:
        result["profile"] = _profile(step, steps=2)
    return result


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    print(json.dumps(run(Job(**options.get("job", options)), profile=options.get("profile", False))))
