"""What the benchmark's record says: each target of speed, what was found, and by how much it was missed.

`python -m benchmarks` writes `results/benchmarks/<device>.json`; notebook 12 draws it. Each part is timed
in one run; what a target compares takes turns in it.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from replication.provenance import read_written

PLAIN, FAST, FOLDED = "plain", "fast", "folded"
OURS = "network's form"  # of spectral pooling, as `benchmarks/pooling.py` names it
FOLDER = "benchmarks"  # within results/


def read_benchmark(results: str | Path, device: str = "cpu") -> dict[str, Any]:
    """The record of one device; its parts by name, each with `result`, versions and device.

    Raises:
        FileNotFoundError: no record of that device.
        ValueError: a record that is not whole, or was changed by hand.
    """
    path = Path(results) / FOLDER / f"{device}.json"
    return read_written(path, command=f"python -m benchmarks --device {device}")


def result(record: dict[str, Any], part: str) -> dict[str, Any]:
    """One part's result; empty where it was not run."""
    return record["parts"].get(part, {}).get("result", {})


def milliseconds(rows: list[dict[str, Any]], **wanted: Any) -> float | None:
    """ms per slice of the one timed job that has these settings; None where it was not timed."""
    for row in rows:
        if "ms_per_slice" in row and all(row["job"][k] == v for k, v in wanted.items()):
            return row["ms_per_slice"]
    return None


def ratio(above: float | None, below: float | None) -> float | None:
    """`above / below`; None where one of them was not measured."""
    return None if above is None or below is None else above / below


def _row(target: str, wanted: float, found: float | None, *, least: bool) -> dict[str, str]:
    """A target that is met from below (`least`) or from above, in words."""
    bound = f"at {'least' if least else 'most'} {wanted:g}"
    if found is None:
        return {"target": target, "wanted": bound, "found": "not run", "verdict": "not run"}
    met = found >= wanted if least else found <= wanted
    missed = f"missed by a factor of {wanted / found if least else found / wanted:.2f}"
    return {
        "target": target,
        "wanted": bound,
        "found": f"{found:.2f}",
        "verdict": "met" if met else missed,
    }


def targets(cpu: dict[str, Any], gpu: dict[str, Any] | None = None) -> pd.DataFrame:
    """Every target, a row each: what was wanted, what was found, and whether it was met.

    Args:
        cpu, gpu: records of `read_benchmark`; None for a device that was not at hand.
    """
    rows = [*_pooling("CPU", cpu), *_pooling("GPU", gpu), *_on_a_cpu(cpu), *_on_a_gpu(gpu), _curves(cpu)]
    return pd.DataFrame(rows).set_index("target")


def _pooling(name: str, record: dict[str, Any] | None) -> list[dict[str, str]]:
    rows = []
    kinds = result(record, "pooling") if record else {}
    for kind, of in (kinds or {"float32": {}}).items():
        found, where = of.get("rows", []), f"spectral pooling, {name}, {kind}"
        ffts = [r["over_best_fft"] for r in found if r["over_best_fft"] is not None]
        if ffts or not found:
            faster = f"{where}: times faster than the better FFT, worst size"
            rows.append(_row(faster, 3, min(ffts, default=None), least=True))
        slowest = max((r["over_limit"] for r in found), default=None)
        rows.append(_row(f"{where}: time over the limit, worst size", 2, slowest, least=False))
    return rows


def _on_a_cpu(record: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    for size in ("128", "256"):
        here = result(record, "step").get(size, [])
        gain = ratio(milliseconds(here, form=PLAIN), milliseconds(here, form=FAST))
        what = f"training step, CPU, {size}x{size}: times faster than the plain form"
        rows.append(_row(what, 2, gain, least=True))
    inference = result(record, "inference").get("rows", [])
    ours = milliseconds(inference, network="chsnet", form=FOLDED, dtype="float32")
    for form, how in ((FAST, "as it is"), (FOLDED, "folded too")):
        unet = milliseconds(inference, network="bu", form=form, dtype="float32")
        what = f"CHS-Net (folded) on a CPU, 256x256: time over the U-Net's ({how})"
        rows.append(_row(what, 1.5, ratio(ours, unet), least=False))
    return rows


def _on_a_gpu(record: dict[str, Any] | None) -> list[dict[str, str]]:
    trained = [row for part in ("gpu", "compiled") if record for row in result(record, part).get("rows", [])]
    fastest = min((r["ms_per_slice"] for r in trained if "ms_per_slice" in r), default=None)
    eager = milliseconds(trained, form=PLAIN)
    rate = 1e3 / fastest if fastest else None
    return [
        _row("training, GPU, 256x256: slices a second", 1000, rate, least=True),
        _row("training, GPU, 256x256: times faster than eager float32", 5, ratio(eager, fastest), least=True),
    ]


def _curves(record: dict[str, Any]) -> dict[str, str]:
    within = [w for values in result(record, "quality").get("within", {}).values() for w in values]
    return {
        "target": "training curve of the fast form within the seeds' spread of the plain one's",
        "wanted": "every epoch and curve",
        "found": f"{sum(within)} of {len(within)}" if within else "not run",
        "verdict": "not run" if not within else "met" if all(within) else "missed",
    }
