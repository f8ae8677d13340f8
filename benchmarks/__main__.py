"""`python -m benchmarks`: run the parts, print their tables, keep the record."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import limits, pooling, quality, roofline
from benchmarks.turns import exponent, forward_flops, network_of, print_rows, time_in_turns
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
        self.options = options
        self.common = {"threads": options.threads, "device": options.device}

    def _jobs(self, **changes: Any) -> Job:
        return Job(**{**self.common, **changes})

    def limits(self) -> dict[str, float]:
        device = self.options.device
        found = {
            "flops": limits.peak_flops(device=device),
            **(
                {"flops_bfloat16": limits.peak_flops(device=device, dtype=torch.bfloat16)}
                if limits.has_bfloat16(device)
                else {}
            ),
            "bandwidth": limits.copy_bandwidth(device=device),
        }
        print("  " + ", ".join(f"{k} {v / 1e9:.0f} G/s" for k, v in found.items()))
        return found

    def pooling(self) -> dict[str, Any]:
        device, found = self.options.device, {}
        for dtype in (torch.float32, *([torch.bfloat16] if device == "cuda" else [])):
            # The limits anew, in the same run as what is held against them.
            peak, bandwidth = (
                limits.peak_flops(device=device, dtype=dtype),
                limits.copy_bandwidth(device=device),
            )
            rows = pooling.measure(
                batch=16, peak=peak, bandwidth=bandwidth, rounds=5, device=device, dtype=dtype
            )
            found[str(dtype).removeprefix("torch.")] = {"flops": peak, "bandwidth": bandwidth, "rows": rows}
            for row in rows:
                best = "" if row["over_best_fft"] is None else f"{row['over_best_fft']:.1f}x the best FFT, "
                print(
                    f"  {dtype} {row['side']:4} {row['form']:9} {1e3 * row['seconds'][pooling.OURS]:8.2f} ms: "
                    f"{best}{row['over_limit']:.1f} of the limit ({row['limit']})"
                )
        return found

    def step(self) -> dict[str, Any]:
        """Plain against fast at 128 and 256, and what each change is worth."""
        forms = [form for form in FORMS if form != "folded"]
        found = {
            "128": time_in_turns([self._jobs(form=form, size=128, batch=16) for form in forms]),
            "256": time_in_turns(
                [self._jobs(form=form, size=256, batch=8, steps=2) for form in ("plain", "fast")]
            ),
        }
        for size, rows in found.items():
            print_rows(rows, f"{size}x{size}")
        return found

    def batch(self) -> dict[str, Any]:
        """Cost per slice against the batch, where the allocator shows."""
        rows = time_in_turns(
            [self._jobs(form=form, batch=b) for form in ("plain", "fast") for b in (2, 4, 8, 16)], rounds=1
        )
        print_rows(rows, "batches")
        return {"128": rows}

    def profile(self) -> dict[str, Any]:
        """Time by operation of one step at 256x256."""
        rows = time_in_turns(
            [self._jobs(form=form, size=256, batch=4, steps=2) for form in ("plain", "fast")],
            rounds=1,
            profile=True,
        )
        for row in rows:
            total = sum(op["seconds"] for op in row["profile"])
            print(f"  {row['job']['form']}: five costliest of {total:.2f} s")
            for op in row["profile"][:5]:
                print(f"    {op['op']:40} {op['seconds']:.2f} s in {op['calls']:.0f} calls")
        return {"256": rows}

    def roofline(self) -> dict[str, Any]:
        rows = roofline.measure(device=self.options.device)
        for row in rows:
            print(
                f"  {row['part']:28} {1e3 * row['seconds']:8.2f} ms {row['flops'] / row['seconds'] / 1e9:7.1f} GFLOP/s "
                f"at {row['flops'] / row['bytes']:6.1f} FLOP per byte"
            )
        return {"size": 256, "batch": 4, "rows": rows}

    def inference(self) -> dict[str, Any]:
        """CHS-Net, both stages, against the plain U-Net."""
        jobs = [
            self._jobs(network=network, form=form, mode="infer", size=256, batch=4, dtype=dtype)
            for dtype in ("float32", *(["bfloat16"] if limits.has_bfloat16(self.options.device) else []))
            for network, form in (("bu", "fast"), ("chsnet", "fast"), ("chsnet", "folded"), ("bu", "folded"))
            if dtype == "float32" or form == "folded"
        ]
        rows = time_in_turns(jobs)
        print_rows(rows, "inference")
        return {"rows": rows, "forward_flops": {n: forward_flops(n, 256) for n in ("full", "bu")}}

    def growth(self) -> dict[str, Any]:
        """Time and memory of a training step against size, batch and threads, with exponents."""
        sizes = [(64, 4, 2), (128, 4, 2), (256, 4, 2), (512, 1, 2)]
        by_size = time_in_turns([self._jobs(size=s, batch=b, steps=n) for s, b, n in sizes], rounds=1)
        by_threads = time_in_turns(
            [self._jobs(**{"threads": n, "batch": 8}) for n in range(1, self.options.threads + 1)], rounds=1
        )
        of_unet = time_in_turns(
            [self._jobs(network="bu", size=s, batch=b, steps=n) for s, b, n in sizes], rounds=1
        )
        rows = [r for r in by_size if "seconds" in r]
        of_memory = [r for r in rows if "memory_mib" in r]
        found = {
            "size": by_size,
            "threads": by_threads,
            "size, U-Net": of_unet,
            "exponents": {
                "time by side": exponent([r["job"]["size"] for r in rows], [r["ms_per_slice"] for r in rows]),
                **(
                    {
                        "memory by side": exponent(
                            [r["job"]["size"] for r in of_memory],
                            [r["memory_mib"] / r["job"]["batch"] for r in of_memory],
                        )
                    }
                    if of_memory
                    else {}
                ),
            },
        }
        print_rows([*by_size, *by_threads, *of_unet], "growth")
        print("  " + ", ".join(f"{k}: {v:.2f}" for k, v in found["exponents"].items()))
        return found

    def peers(self) -> dict[str, Any]:
        """Parameters, multiplications, time and memory of every network of Table 3."""
        rows = []
        for mode, size, batch in (("infer", 256, 4), ("train", 128, 8)):
            rows += time_in_turns(
                [self._jobs(network=n, mode=mode, size=size, batch=batch, steps=2) for n in PEER_NETWORKS],
                rounds=1,
            )
        print_rows(rows, "peers")
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
        if self.options.device != "cuda":
            print("  not run: no GPU")
            return {"rows": []}
        common = {"form": "fast", "size": 256, "batch": 16, "steps": 20}
        rows = time_in_turns([self._jobs(**{**common, **change}) for change in changes], rounds=1)
        print_rows(rows, "GPU")
        return {"rows": rows}

    def quality(self) -> dict[str, Any]:
        """The plain network's training curve on real slices beside the fast one's; long."""
        found = quality.measure(self.options.slices, Path(self.options.runs), every=self.options.every)
        for key, within in found["within"].items():
            shown = ", ".join(
                f"{d:.4f} (seeds: {s:.4f})" for d, s in zip(found["difference"][key], found["spread"][key])
            )
            print(f"  {key}: plain less fast, by epoch: {shown}: {'within' if all(within) else 'not within'}")
        return found


PARTS = (
    "limits",
    "pooling",
    "step",
    "batch",
    "profile",
    "roofline",
    "inference",
    "growth",
    "peers",
    "gpu",
    "compiled",
    "quality",
)


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
