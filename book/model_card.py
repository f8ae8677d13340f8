"""What a model card says of the committed weights: tables and words from their sidecars, their records, the sealed test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from run_status import markdown

from chslib.pretrained import available

NONE = "—"


class Card:
    """The parts of a model card, as Markdown, of the weights of the repository in folder `source`."""

    def __init__(self, source: str | Path) -> None:
        folder, results = Path(source, "chslib/weights"), Path(source, "results")
        self.files = {name: folder / f"{name}.safetensors" for name in available(folder)}
        self.sidecars = {name: _read(path.with_suffix(".json")) for name, path in self.files.items()}
        self.records = {name: _read(results / f"{name}.json") for name in self.files}
        self.sealed = _read(results / "sealed-test.json")

    def part(self, what: str) -> str:
        """One part by its name.

        Raises:
            KeyError: no such part.
            ValueError: `preparation` or `licence`, where the weights do not agree.
        """
        parts: dict[str, Callable[[], str]] = {
            "weights": self._weights, "checksums": self._checksums, "preparation": lambda: self._shared("preparation"),
            "licence": lambda: self._shared("licence"), "infection": lambda: self._patients("infection"),
            "lungs": lambda: self._patients("lungs"),
        }  # fmt: skip
        return parts[what]()

    def _target(self, name: str) -> str:
        return self.records[name]["config"]["target"]

    def _sealed(self, name: str) -> dict[str, Any]:
        """What the sealed test has of these weights, as a cascade's second stage or as its first; empty: nothing."""
        target = self._target(name)
        for tried, of in self.sealed["evaluated"].items():
            first = self.sidecars.get(tried, {}).get("first_stage")
            if target in of and name in (tried, f"{tried.split('/')[0]}/{first}"):
                return of[target]
        return {}

    def _weights(self) -> str:
        rows = []
        for name, record in self.records.items():
            config, fit, people = (
                record["config"],
                record["fit"],
                record["data"]["split"]["train"]["patients"],
            )
            stage = ", second stage" if self.sidecars[name]["first_stage"] else ""
            how = "random slices" if config["protocol"] == "slice" else "others in the test"
            cut = f" of {config['max_epochs']}, cut short" if fit.get("out_of_time") else ""
            sealed = self._sealed(name).get("pooled")
            rows.append([
                f"`{name}`", self._target(name) + stage, "{0}×{0}".format(config["size"]),
                f"{len(people)} people, {how}", f"{fit['epochs']}{cut}",
                _score(record["test"]["pooled"]), _score(sealed),
            ])  # fmt: skip
        return markdown(["Name", "Finds", "Slices", "Trained on", "Epochs", "Own test", "Sealed test"], rows)

    def _patients(self, target: str) -> str:
        names = [name for name in self.files if self._target(name) == target]
        tested = {name: self.records[name]["test"]["patients"] for name in names}
        rows = [
            [f"`{who}`", *(_score(tested[name].get(who)) for name in names)]
            for who in sorted({who for of in tested.values() for who in of})
        ]
        for who in self.sealed["volumes"]:
            found = [self._sealed(name).get("patients_dsc", {}).get(who) for name in names]
            rows.append([f"`{who}`, sealed", *(NONE if dsc is None else f"{dsc:.2f}" for dsc in found)])
        return markdown(["Patient", *(f"`{name}`" for name in names)], rows)

    def _checksums(self) -> str:
        rows = [
            [f"`{name}`", f"{self.files[name].stat().st_size / 1e6:.1f} MB", f"`{sidecar['sha256']}`"]
            for name, sidecar in self.sidecars.items()
        ]
        return markdown(["File", "Size", "sha256"], rows)

    def _shared(self, key: str) -> str:
        told = {sidecar[key] for sidecar in self.sidecars.values()}
        if len(told) != 1:
            raise ValueError(f"the weights have {len(told)} texts of {key!r}, expected one; tell them apart")
        return told.pop()


def _score(scores: dict[str, float] | None) -> str:
    return f"{scores['dsc']:.2f}" if scores else NONE


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
