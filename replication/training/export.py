"""How a trained run's weights get to where `chslib.load_pretrained` finds them."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors.torch import save

from replication.files import write_json
from replication.training.grid import get_run
from replication.training.networks import trained_network
from replication.training.profiles import get_profile
from replication.training.recipe import context_of

PREPARATION = (  # of the slices, by the store's fingerprint, and what every network here is fed
    "slices as `chs-net data fuse --preparation minmax-clahe` makes them, shrunk to the size of the record's "
    "config by area averaging; grey values 0..255 divided by 255, one channel, sides that divide by 16"
)
LICENCE = (
    "Trained on slices of the COVID-19 CT Lung and Infection Segmentation Dataset (Ma et al. 2020, "
    "doi 10.5281/zenodo.3757476; CC BY 4.0 by its record, CC BY-NC-SA by its author's README): "
    "non-commercial research only. Not for clinical use."
)


def export_weights(
    run: str, *, profile: str, results: str | Path, runs: str | Path, folder: str | Path
) -> Path:
    """Write a trained run's weights as half-precision safetensors, with the sidecar; returns the file.

    Raises:
        FileNotFoundError: the run's record or weights are not there.
        ValueError: the weights are not the ones that the record tells of, or do not fit float16; a
            network that reads neighbouring slices, for a reader of single slices has none.
    """
    told = get_run(run)
    if context_of(told.recipe):
        raise ValueError(
            f"{told.name} reads neighbouring slices; load_pretrained gives networks of single slices. Export another run."
        )
    record_path = Path(results) / profile / f"{told.name}.json"
    if not record_path.is_file():
        raise FileNotFoundError(f"{record_path} is missing; train {told.name} first.")
    record = json.loads(record_path.read_text())
    network = trained_network(told, get_profile(profile), record, runs)
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    if wrong := [k for k, v in half.items() if not torch.isfinite(v).all()]:
        raise ValueError(f"{', '.join(wrong)} of {told.name} exceed the range of float16 (65504).")
    content = save(half, metadata={"run": told.name, "profile": profile})
    path = Path(folder) / profile / f"{told.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    sidecar = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "run": told.name,
        "profile": profile,
        "first_stage": told.first_stage,
        "cascade": told.cascade,
        "preparation": PREPARATION,
        "licence": LICENCE,
        "network": {"arm": told.arm, "widths": record["config"]["widths"], **told.network},
        "record": {
            k: record[k] for k in ("config", "test", "weights_sha256", "started", "commit", "versions")
        }
        | {"fit": {k: v for k, v in record["fit"].items() if k != "history"}},
    }
    write_json(path.with_suffix(".json"), sidecar)
    return path


def export_with_first_stage(
    run: str, *, profile: str, results: str | Path, runs: str | Path, folder: str | Path
) -> list[Path]:
    """`export_weights` of a run, and before it of the first stage that it loads with; returns the files."""
    told = get_run(run)
    names = [told.first_stage, told.name] if told.first_stage else [told.name]
    where = {"profile": profile, "results": results, "runs": runs, "folder": folder}
    return [export_weights(name, **where) for name in names]
