"""`python -m benchmarks`: run the parts, keep the record, which notebook 12 draws."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import limits, pooling, quality, roofline
from benchmarks.turns import exponent, forward_flops, network_of, time_in_turns
from benchmarks.worker import FORMS, Job
from chslib.network import count_parameters
from replication.files import write_json
from replication.peers import PEERS
from replication.provenance import digest, environment

ROOT = Path(__file__).resolve().parent.parent
PEER_NETWORKS = ("full", "bu", *(peer for peer in PEERS if peer != "bu"))


class Parts:
    """Every part of the benchmark by name; each returns what the record keeps of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, options.device

    def _time(self, *jobs: dict[str, Any], rounds: int = 2, profile: bool = False) -> list[dict[str, Any]]:
        common = {"threads": self.options.threads, "device": self.device}
        return time_in_turns([Job(**common | job) for job in jobs], rounds=rounds, profile=profile)

    def limits(self) -> dict[str, float]:
        """One large product, and a copy."""
        found = {"flops": limits.peak_flops(device=self.device)}
        if limits.has_bfloat16(self.device):
            found["flops_bfloat16"] = limits.peak_flops(device=self.device, dtype=torch.bfloat16)
        return found | {"bandwidth": limits.copy_bandwidth(device=self.device)}

    def pooling(self) -> dict[str, Any]:
        """The forms of spectral pooling, and the limits anew, in the same run as what is held against them."""
        found = {}
        for dtype in (torch.float32, *([torch.bfloat16] if self.device == "cuda" else [])):
            peak = limits.peak_flops(device=self.device, dtype=dtype)
            bandwidth = limits.copy_bandwidth(device=self.device)
            rows = pooling.measure(
                batch=16, peak=peak, bandwidth=bandwidth, rounds=5, device=self.device, dtype=dtype
            )
            found[str(dtype).removeprefix("torch.")] = {"flops": peak, "bandwidth": bandwidth, "rows": rows}
        return found

    def step(self) -> dict[str, Any]:
        """Plain against fast at 128 and 256, and what each change is worth."""
        return {
            "128": self._time(*({"form": form, "batch": 16} for form in FORMS if form != "folded")),
            "256": self._time(*({"form": form, "size": 256, "steps": 2} for form in ("plain", "fast"))),
        }

    def batch(self) -> dict[str, Any]:
        """Cost per slice against the batch, where the allocator shows."""
        jobs = ({"form": form, "batch": b} for form in ("plain", "fast") for b in (2, 4, 8, 16))
        return {"128": self._time(*jobs, rounds=1)}

    def profile(self) -> dict[str, Any]:
        """Time by operation of one step at 256x256."""
        jobs = ({"form": form, "size": 256, "batch": 4, "steps": 2} for form in ("plain", "fast"))
        return {"256": self._time(*jobs, rounds=1, profile=True)}

    def roofline(self) -> dict[str, Any]:
        """Each part of the network against the limits."""
        return {"size": 256, "batch": 4, "rows": roofline.measure(device=self.device)}

    def inference(self) -> dict[str, Any]:
        """CHS-Net, both stages, against the plain U-Net."""
        jobs = [
            {"network": network, "form": form, "mode": "infer", "size": 256, "batch": 4, "dtype": dtype}
            for dtype in ("float32", *(["bfloat16"] if limits.has_bfloat16(self.device) else []))
            for network, form in (("bu", "fast"), ("chsnet", "fast"), ("chsnet", "folded"), ("bu", "folded"))
            if dtype == "float32" or form == "folded"
        ]
        return {
            "rows": self._time(*jobs),
            "forward_flops": {n: forward_flops(n, 256) for n in ("full", "bu")},
        }

    def growth(self) -> dict[str, Any]:
        """Time and memory of a training step against size, batch and threads, with exponents."""
        sizes = [{"size": s, "batch": b, "steps": 2} for s, b in ((64, 4), (128, 4), (256, 4), (512, 1))]
        found = {
            "size": self._time(*sizes, rounds=1),
            "threads": self._time(*({"threads": n + 1} for n in range(self.options.threads)), rounds=1),
            "size, U-Net": self._time(*({"network": "bu", **size} for size in sizes), rounds=1),
        }
        rows = [r for r in found["size"] if "seconds" in r]
        of_memory = [r for r in rows if "memory_mib" in r]
        exponents = {
            "time by side": exponent([r["job"]["size"] for r in rows], [r["ms_per_slice"] for r in rows])
        }
        if of_memory:
            exponents["memory by side"] = exponent(
                [r["job"]["size"] for r in of_memory],
                [r["memory_mib"] / r["job"]["batch"] for r in of_memory],
            )
        return found | {"exponents": exponents}

    def peers(self) -> dict[str, Any]:
        """Parameters, multiplications, time and memory of every network of Table 3."""
        rows = []
        for how in ({"mode": "infer", "size": 256, "batch": 4}, {"mode": "train", "size": 128, "batch": 8}):
            rows += self._time(*({"network": n, "steps": 2, **how} for n in PEER_NETWORKS), rounds=1)
        counts = {
            name: {
                "parameters": count_parameters(network_of(name)),
                "macs_256": forward_flops(name, 256) / 2,
            }
            for name in PEER_NETWORKS
        }
        return {"rows": rows, "counts": counts}

    def gpu(self) -> dict[str, Any]:
        """One RAIU-Net at 256x256, batch 16, on a GPU: eager float32 first, then what helps."""
        return self._on_gpu(
            {"form": "plain", "steps": 5},
            {"steps": 10},
            {"dtype": "bfloat16"},
            {"dtype": "bfloat16", "form": "fast, NCHW"},
            {"dtype": "bfloat16", "repeatable": True},
        )

    def compiled(self) -> dict[str, Any]:
        """The same through `torch.compile`, which takes minutes to prepare."""
        return self._on_gpu({"dtype": "bfloat16"}, {"dtype": "bfloat16", "compile": True})

    def _on_gpu(self, *changes: dict[str, Any]) -> dict[str, Any]:
        if self.device != "cuda":
            print("  not run: no GPU")
            return {"rows": []}
        common = {"form": "fast", "size": 256, "batch": 16, "steps": 20}
        return {"rows": self._time(*(common | change for change in changes), rounds=1)}

    def quality(self) -> dict[str, Any]:
        """The plain network's training curve on real slices beside the fast one's; long."""
        return quality.measure(self.options.slices, Path(self.options.runs), every=self.options.every)


PARTS = tuple(name for name in vars(Parts) if not name.startswith("_"))


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for and not in the record yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of: {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda")
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", help="the record (default: results/benchmarks/<device>.json)")
    parser.add_argument("--slices", default="", help="slice store of real slices: for quality alone")
    parser.add_argument("--runs", default=str(ROOT / "runs" / "benchmarks"))
    parser.add_argument(
        "--every", type=int, default=4, help="quality trains on every n-th slice (%(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="measure parts anew that the record has")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    out = Path(options.out or ROOT / "results" / "benchmarks" / f"{options.device}.json")
    record = json.loads(out.read_text()) if out.is_file() else {"parts": {}}
    torch.set_num_threads(options.threads)
    parts = Parts(options)
    for name in options.parts or PARTS:
        if name in record["parts"] and not options.again:
            print(f"== {name}: in the record")
            continue
        if name == "quality" and not options.slices:
            print("== quality: not run; it needs real slices (--slices)")
            continue
        print(f"== {name}", flush=True)
        measured: Callable[[], dict[str, Any]] = getattr(parts, name)
        record["parts"][name] = {"result": measured(), **environment()}
        record["digest"] = digest(record)
        write_json(out, record)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
