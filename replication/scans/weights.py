"""The two networks that segment a scan, by a name or a path: of the package, exported, or straight from a run's folder.

One meaning everywhere: a name that `chs-net weights list` shows; a file that `weights export` wrote; the folder of a run
(`runs/local/<profile>/<run>`); or a folder that holds one of these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from chslib.network import CASCADES
from chslib.pretrained import DEFAULT, FOLDER, available, load_stage
from replication.data.slices.origin import KNOWN, Origin
from replication.training.export import export_run, put, read_run, without_infection


@dataclass(frozen=True)
class Stage:
    """One trained network with its sidecar.

    Attributes:
        path: its file, or its run's folder.
    """

    path: Path
    network: nn.Module
    sidecar: dict[str, Any]

    @property
    def name(self) -> str:
        """Profile and run, without the folders of this machine."""
        return "/".join(self.path.resolve().parts[-2:])

    @property
    def config(self) -> dict[str, Any]:
        return self.sidecar["record"]["config"]

    @property
    def size(self) -> int:
        """Side of the slices that it was trained on, pixels."""
        return self.config["size"]

    @property
    def origin(self) -> Origin:
        """How these were prepared, and whose they are."""
        told = self.sidecar.get("origin")
        origin = Origin(**told) if told else KNOWN.get(self.config["data_fingerprint"])
        if origin is None:
            raise ValueError(
                f"{self.path}: its sidecar does not say how slices were prepared; export it again."
            )
        return origin

    @property
    def without_infection(self) -> int | None:
        """How many of them show no infection, or None where that is not known."""
        told = self.sidecar.get("trained_on")
        return told["without_infection"] if told else without_infection(self.sidecar["record"])

    @property
    def dsc(self) -> float | None:
        """Its Dice coefficient on its own test slices."""
        return self.sidecar["record"]["test"].get("pooled", {}).get("dsc")


@dataclass(frozen=True)
class Cascade:
    """What segments a scan.

    Attributes:
        feed: how the lungs feed the second network, see `chslib.network.contour_map`; "whole": not at all, it
            reads whole slices.
        weights: what of it belongs into a report.
    """

    lungs: Stage
    infection: Stage
    feed: str
    weights: dict[str, Any]


def below(folder: str | Path) -> Iterator[Path]:
    """All weights in a folder: files that `weights export` wrote, without their suffix, and folders of runs."""
    folder = Path(folder)
    files = {p.with_suffix("") for p in folder.rglob("*.safetensors")}
    yield from sorted(files | {p.parent for p in folder.rglob("weights.pt")})


def locate(weights: str | Path | None = None) -> list[Path]:
    """Every weights that a name or path means; None: the default.

    Raises:
        FileNotFoundError: nothing there.
    """
    name = str(weights or DEFAULT).removesuffix(".safetensors").rstrip("/")
    if name in available():
        return [FOLDER / name]
    path = Path(name)
    if path.with_name(path.name + ".safetensors").is_file():
        return [path]
    found = list(below(path)) if path.is_dir() else []
    if not found:
        raise FileNotFoundError(
            f"No weights {name!r}: expected a file or folder of weights, the folder of a run, or a name, one of: "
            f"{', '.join(available())}"
        )
    return found


def load(path: Path, *, results: str | Path | None = None) -> Stage:
    """One network: of `path` without its suffix, or of a run's folder; see `replication.training.export.read_run`."""
    file = path.with_name(path.name + ".safetensors")
    return Stage(path, *(load_stage(file) if file.is_file() else read_run(path, results=results)))


def load_cascade(weights: str | Path | None = None) -> Cascade:
    """What segments a scan; a network for infection alone has the default first stage in front.

    Raises:
        FileNotFoundError: no such weights, or no first stage beside a second.
        ValueError: several cascades, or none that finds infection; see also `load`.
    """
    stages = {path: load(path) for path in locate(weights)}
    firsts = {path.with_name(first) for path, s in stages.items() if (first := s.sidecar["first_stage"])}
    finds = [s for path, s in stages.items() if s.config["target"] == "infection" and path not in firsts]
    if len(finds) != 1:
        raise ValueError(
            f"{weights or DEFAULT}: expected weights that find infection, and one of them; there are "
            f"{', '.join(str(s.path) for s in finds) or 'networks for lungs alone'}."
        )
    infection = finds[0]
    first = infection.sidecar["first_stage"]
    lungs = load(infection.path.with_name(first)) if first else load(FOLDER / DEFAULT)
    lungs = lungs if first else load(lungs.path.with_name(lungs.sidecar["first_stage"]))
    if first and lungs.sidecar["record"]["weights_sha256"] != infection.config.get("first_stage_weights"):
        raise ValueError(f"{infection.path} was trained behind other lungs than those of {lungs.path}.")
    feed = infection.sidecar["cascade"]
    feed = "mask" if feed == "truth" else feed if first and feed in CASCADES else "whole"
    return Cascade(lungs, infection, feed, _told(lungs, infection))


def stages_of(weights: str | Path, *, results: str | Path | None = None) -> list[Stage]:
    """Every network that a name or path means, a first stage before its second; errors as of `locate` and `load`."""
    stages: dict[Path, Stage] = {}
    for path in locate(weights):
        stage = load(path, results=results)
        if first := stage.sidecar["first_stage"]:
            before = path.with_name(first)
            stages[before] = stages.get(before) or load(before, results=results)
        stages[path] = stage
    return list(stages.values())


def export(
    weights: str | Path, out: str | Path, *, results: str | Path | None = None, replace: bool = False
) -> list[Path]:
    """Write weights where `chslib.load_pretrained` reads them, `<out>/<profile>/<run>`; returns the files.

    Raises:
        FileNotFoundError, ValueError: see `locate` and `replication.training.export.export_run`.
    """
    written = []
    for stage in stages_of(weights, results=results):
        file = stage.path.with_name(stage.path.name + ".safetensors")
        if file.is_file():
            there = Path(out) / f"{stage.name}.safetensors"
            put(there, file.read_bytes(), stage.sidecar, replace=replace)
        else:
            there = export_run(stage.path, out, results=results, replace=replace)
        written.append(there)
    return written


def _told(lungs: Stage, infection: Stage) -> dict[str, Any]:
    """Of the weights, for a report: no path of this machine, nobody's name."""
    stages = {"lungs": lungs, "infection": infection}
    return {
        "name": infection.name, "size": infection.size,
        "sha256": {k: s.sidecar.get("sha256") or s.sidecar["record"]["weights_sha256"] for k, s in stages.items()},
        "preparation": infection.origin.prepared, "ends": infection.origin.ends, "licence": infection.origin.licence,
        "dsc": {k: None if s.dsc is None else round(s.dsc, 3) for k, s in stages.items()},
        **({} if infection.sidecar["first_stage"] else {"lungs": lungs.name}),
    }  # fmt: skip
