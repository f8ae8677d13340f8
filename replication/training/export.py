"""A trained run's weights with all that a reader of them has to know: straight from its folder, or exported.

An exported file is what `chslib.load_pretrained` reads; its sidecar says what the run's record says, no more.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from chslib.network import ARMS
from replication.data.slices.origin import KNOWN, origin_of
from replication.files import write_json, write_whole
from replication.training.grid import Run, get_run
from replication.training.networks import trained_network
from replication.training.profiles import get_profile
from replication.training.recipe import context_of
from replication.training.state import RECORD


def read_run(folder: str | Path, *, results: str | Path | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network that a run left in its folder, and its sidecar.

    Args:
        folder: `<runs>/<profile>/<run>`, which holds `weights.pt`.
        results: folder of the record; None: the one that the training left beside the weights.

    Raises:
        FileNotFoundError: the run's record or weights are not there.
        ValueError: weights that are not those of the record; a store that did not say how its slices were prepared; a
            network that reads neighbouring slices, which a reader of single slices has not.
    """
    folder = Path(folder).resolve()
    profile, run = folder.parent.name, get_run(folder.name)
    if context_of(run.recipe):
        raise ValueError(f"{run.name} reads neighbouring slices; expected a network of single slices.")
    path = Path(results) / profile / f"{run.name}.json" if results else folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; train {run.name} first, or name the folder of its record (--results)."
        )
    record = json.loads(path.read_text())
    network = trained_network(run, get_profile(profile), record, folder.parent.parent)
    return network.eval(), sidecar_of(run, record)


def sidecar_of(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    """What a run's record says to whoever uses its weights, without the file's `sha256`.

    Names of patients stay out of it unless the data are public.
    """
    origin = origin_of(record)
    if origin is None:
        raise ValueError(
            f"{run.name} was trained on slices that do not say how they were prepared. Write store.json beside their "
            'slices.csv, such as {"preparation": "window", "window": [-1250, 250], "size": 256, "stated": {"name": '
            '"Ward 7", "licence": "not to be passed on"}}, take the record away and train again.'
        )
    test, train = dict(record["test"]), record.get("data", {}).get("split", {}).get("train", {})
    people = test.pop("patients", {}) if not origin.public else test.get("patients", {})
    return {
        "run": run.name,
        "profile": record["profile"],
        "first_stage": run.first_stage,
        "cascade": run.cascade,
        "preparation": origin.prepared,
        "licence": origin.licence,
        "origin": origin.__dict__,
        "network": {"arm": run.arm, "widths": record["config"]["widths"], **run.network},
        "trained_on": {"slices": train.get("slices"), "without_infection": without_infection(record)},
        "tested_on": {"people": len(people)},
        "record": {
            k: record[k] for k in ("config", "weights_sha256", "started", "commit", "versions")
        } | {"test": test, "fit": {k: v for k, v in record["fit"].items() if k != "history"}},
    }  # fmt: skip


def without_infection(record: dict[str, Any]) -> int | None:
    """How many slices without infection a network was trained on, by its record or its sidecar; None: not known."""
    if "healed" in record["config"]:  # made, as many as could be: not counted, but not none
        return None
    if record["config"].get("data_fingerprint") in KNOWN:
        return 0
    return record.get("data", {}).get("split", {}).get("train", {}).get("without_infection")


def export_run(
    folder: str | Path, out: str | Path, *, results: str | Path | None = None, replace: bool = False
) -> Path:
    """Write a run's network as half-precision safetensors with its sidecar, `<out>/<profile>/<run>`; returns the file.

    Raises:
        FileNotFoundError, ValueError: see `read_run`; weights that do not fit float16; a network of
            `replication.peers`, which chslib does not build; another file in the way, unless `replace`.
    """
    network, sidecar = read_run(folder, results=results)
    if sidecar["network"]["arm"] not in ARMS:
        raise ValueError(
            f"{sidecar['run']} is a {sidecar['network']['arm']}, which chslib does not build; `segment` reads it from {folder}."
        )
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    if wrong := [k for k, v in half.items() if not torch.isfinite(v).all()]:
        raise ValueError(f"{', '.join(wrong)} of {sidecar['run']} exceed the range of float16 (65504).")
    # One entry: safetensors writes several in any order, and the same weights are to be the same bytes.
    content = save(half, metadata={"run": f"{sidecar['profile']}/{sidecar['run']}"})
    path = Path(out) / sidecar["profile"] / f"{sidecar['run']}.safetensors"
    put(path, content, {"sha256": hashlib.sha256(content).hexdigest(), **sidecar}, replace=replace)
    return path


def put(path: Path, content: bytes, sidecar: dict[str, Any], *, replace: bool) -> None:
    """Write weights and their sidecar; other ones that stand there are kept unless `replace`."""
    beside = path.with_suffix(".json")
    if not replace and path.is_file() and beside.is_file():
        if path.read_bytes() != content or json.loads(beside.read_text()) != json.loads(json.dumps(sidecar)):
            raise ValueError(f"{path}: other weights stand there; choose another folder, or --replace them.")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    write_json(beside, sidecar)
