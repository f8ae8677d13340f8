"""Trained weights: half-precision safetensors with a sidecar, loaded by name and never unpickled.

    chslib/weights/<profile>/<run>.safetensors   every tensor of the network, float16 (counters as they are)
    chslib/weights/<profile>/<run>.json          sha256, how to build and feed it, the run's record, licence

    python -m chslib.pretrained list
    python -m chslib.pretrained export table2-infection-patient-fold0 --profile cpu

They were trained on data for non-commercial research, and are for research only, not for clinical use.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chslib.network import CHSNet, build_network
from replication.provenance import write_json

FOLDER = Path(__file__).resolve().parent / "weights"
PREPARATION = (  # of the slices, by the store's fingerprint, and what every network here is fed
    "slices as replication.data.fusion prepares them with 'minmax-clahe', shrunk to the size of the record's "
    "config by area averaging; grey values 0..255 divided by 255, one channel, sides that divide by 16"
)
LICENCE = (
    "Trained on slices of the COVID-19 CT Lung and Infection Segmentation Dataset (Ma et al. 2020, "
    "doi 10.5281/zenodo.3757476; CC BY 4.0 by its record, CC BY-NC-SA by its author's README): "
    "non-commercial research only. Not for clinical use."
)


def available(folder: str | Path = FOLDER) -> list[str]:
    """Names that `load_pretrained` knows, as `profile/run`."""
    return sorted(f"{p.parent.name}/{p.stem}" for p in Path(folder).glob("*/*.safetensors"))


def export_weights(
    run: str, *, profile: str, results: str | Path, runs: str | Path, folder: str | Path = FOLDER
) -> Path:
    """Write a trained run's weights as half-precision safetensors, with the sidecar; returns the file.

    Raises:
        FileNotFoundError: the run's record or weights are not there.
        ValueError: the weights are not the ones that the record tells of, or do not fit float16; a
            network that reads neighbouring slices, for a reader of single slices has none.
    """
    from safetensors.torch import save

    from replication.training.grid import get_run
    from replication.training.profiles import get_profile
    from replication.training.recipe import context_of
    from replication.training.run import trained_network  # training imports more than loading needs

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


def read_weights(name: str, *, folder: str | Path = FOLDER) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One file's tensors in float32, and its sidecar.

    Raises:
        FileNotFoundError: no such weights; the message lists the names there are.
        ValueError: a file that differs from its sidecar's checksum.
    """
    from safetensors.torch import load

    if name not in available(folder):
        names = ", ".join(available(folder)) or "none"
        raise FileNotFoundError(f"No weights {name!r}; expected profile/run, one of: {names}.")
    path = Path(folder) / f"{name}.safetensors"
    content, sidecar = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    if (found := hashlib.sha256(content).hexdigest()) != sidecar["sha256"]:
        raise ValueError(
            f"{path} has sha256 {found}, its sidecar says {sidecar['sha256']}; the file is damaged or "
            "another one, fetch both again (git lfs or a shortened download often is the cause)."
        )
    return {k: v.float() if v.is_floating_point() else v for k, v in load(content).items()}, sidecar


def load_pretrained(name: str, *, folder: str | Path = FOLDER) -> nn.Module:
    """A trained network by its name, in evaluation mode, on the CPU.

    Args:
        name: `profile/run`, for example "cpu/table2-infection"; see `available`. A second stage
            comes as the whole cascade (`CHSNet`), with the first stage that it was trained behind;
            any other run as its one network.

    Raises:
        FileNotFoundError, ValueError: see `read_weights`.

    Example:
        >>> network = load_pretrained("cpu/table2-infection")
        >>> network(torch.zeros(1, 1, 128, 128)).infection.shape
        torch.Size([1, 1, 128, 128])
    """
    from replication.training.grid import get_run  # `import chslib` stays the network and its loss

    state, sidecar = read_weights(name, folder=folder)
    run = get_run(sidecar["run"])
    settings = dict(sidecar["network"])
    if run.first_stage and run.cascade == "concat":
        settings["in_channels"] = 2
    network = build_network(settings.pop("arm"), **settings)
    network.load_state_dict(state)
    if run.first_stage:
        lungs = load_pretrained(f"{sidecar['profile']}/{run.first_stage}", folder=folder)
        network = CHSNet(lungs=lungs, infection=network, cascade=run.cascade)
    return network.eval()


def main(arguments: list[str] | None = None) -> int:
    """`python -m chslib.pretrained list` and `export RUN`."""
    parser = argparse.ArgumentParser(prog="python -m chslib.pretrained", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (commands.add_parser("list", help="the weights that are there"),
                    commands.add_parser("export", help="write a run's weights, those of its first stage first")):  # fmt: skip
        command.add_argument("--weights", default=FOLDER, help="their folder (%(default)s)")
    export = commands.choices["export"]
    export.add_argument("run", help="a name of the grid; python -m replication.training.grid list shows them")
    export.add_argument("--profile", default="cpu")
    export.add_argument("--results", default="results")
    export.add_argument("--runs", default="runs")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            print("\n".join(available(options.weights)))
        else:
            _export(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _export(options: argparse.Namespace) -> None:
    """A second stage loads as its cascade, so its first stage is exported with it."""
    from replication.training.grid import get_run

    run = get_run(options.run)
    for name in [run.first_stage, run.name] if run.first_stage else [run.name]:
        path = export_weights(
            name, profile=options.profile, results=options.results, runs=options.runs, folder=options.weights
        )
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    size = sum(p.stat().st_size for p in Path(options.weights).rglob("*") if p.is_file()) / 1e6
    print(f"{size:.1f} MB in {options.weights}; the repository holds less than 20 MB")


if __name__ == "__main__":
    sys.exit(main())
