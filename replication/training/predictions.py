"""What a stage is fed and what it predicts: contour maps in, masks on disk out."""

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from tqdm import tqdm

from chslib.inference import Progress
from chslib.network import contour_map
from replication.data.slices.store import SliceStore
from replication.training.batches import with_neighbours
from replication.training.grid import Run
from replication.training.recipe import context_of


def bar(words: str) -> Progress:
    """A progress bar over batches, as `chslib.inference` takes one."""
    return partial(tqdm, desc=words, unit="batch", leave=False)


class StageInputs(NamedTuple):
    """What a run's network sees, and where it comes from.

    Attributes:
        pixels: uint8 (S, C, H, W).
        lungs: the predicted lungs (S, 1, H, W) behind it; None where no first stage feeds it.
        first_stage: name and weights of the run that predicted them; None likewise.
    """

    pixels: np.ndarray
    lungs: np.ndarray | None = None
    first_stage: dict[str, Any] | None = None


def stage_inputs(run: Run, store: SliceStore, runs: Path) -> StageInputs:
    """What a run's network sees of a store.

    Args:
        runs: folder of the runs of its profile, where its first stage left its predictions.

    Raises:
        FileNotFoundError, ValueError: predictions of the first stage that are absent or of other data.
    """
    if run.first_stage:
        lungs, parent = _first_stage(run, store, runs / run.first_stage)
        return StageInputs(second_stage_inputs(store, lungs, cascade=run.cascade), lungs, parent)
    if run.cascade == "truth":
        return StageInputs(second_stage_inputs(store, store.lung[:, None], cascade="mask"))
    context = context_of(run.recipe)
    return StageInputs(with_neighbours(store, context) if context else store.ct[:, None])


def second_stage_inputs(store: SliceStore, lungs: np.ndarray, *, cascade: str) -> np.ndarray:
    """Contour maps (S, C, H, W), uint8 as the CT, of predicted lungs (S, 1, H, W) of 0 and 1."""
    ct, mask = torch.from_numpy(store.ct[:, None]), torch.from_numpy(lungs)
    # In the concatenated form the mask spans 0..255, as the CT does: both are divided by 255 later.
    return contour_map(ct, mask * 255 if cascade == "concat" else mask, cascade=cascade).numpy()


def _first_stage(run: Run, store: SliceStore, folder: Path) -> tuple[np.ndarray, dict[str, str]]:
    """Predicted lungs of the first stage, refused where they are absent or of other data."""
    path = folder / "masks.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {run.name} is fed by the lungs that {run.first_stage} predicts; train that run first."
        )
    masks, hashes = load_masks(path)
    if hashes["fingerprint"] != store.fingerprint or masks.shape[2:] != store.ct.shape[1:]:
        raise ValueError(
            f"{path} holds predictions on other data (fingerprint {hashes['fingerprint'][:12]}, here "
            f"{store.fingerprint[:12]}); train {run.first_stage} on this store first."
        )
    assert run.first_stage is not None
    return masks, {"run": run.first_stage, "weights_sha256": hashes["weights_sha256"]}


def save_masks(path: Path, masks: np.ndarray, *, fingerprint: str, weights_sha256: str) -> None:
    """Write the predictions of a run on its whole store, uint8 (S, 1, H, W), whole or not at all."""
    temporary = path.with_name("part-" + path.name)  # numpy would add .npz to another suffix
    np.savez_compressed(
        temporary,
        bits=np.packbits(masks),
        shape=masks.shape,
        fingerprint=fingerprint,
        weights_sha256=weights_sha256,
    )
    os.replace(temporary, path)


def load_masks(path: str | Path) -> tuple[np.ndarray, dict[str, str]]:
    """The predictions of a run on its whole store: uint8 (S, 1, H, W), and the hashes they belong to."""
    with np.load(path) as saved:
        shape = tuple(saved["shape"])
        masks = np.unpackbits(saved["bits"], count=int(np.prod(shape))).reshape(shape)
        return masks, {k: str(saved[k]) for k in ("fingerprint", "weights_sha256")}


def rows_tested(record: dict[str, Any], store: SliceStore, *, slices: str | Path) -> np.ndarray:
    """Rows of a run's test slices in the store that it was trained on, which lies in the folder `slices`.

    Raises:
        ValueError: another store.
    """
    if store.fingerprint != record["data"]["fingerprint"]:
        raise ValueError(
            f"{slices} is another store (fingerprint {store.fingerprint[:12]}) than {record['run']} was trained on "
            f"({record['data']['fingerprint'][:12]}); give the folder of that store."
        )
    row_of = {slice_id: row for row, slice_id in enumerate(store.table["slice_id"])}
    return np.array([row_of[entry[0]] for entry in record["slices"]])


def masks_tested(
    record: dict[str, Any], path: str | Path, store: SliceStore, *, slices: str | Path
) -> tuple[np.ndarray, np.ndarray]:
    """What a run predicted on its test slices, uint8 (N, H, W) as `save_masks` left it in `path`, and their rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, or of other weights or data than the record's; another store.
    """
    try:
        masks, hashes = load_masks(path)
    except (KeyError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(
            f"{path} is no masks.npz of a run ({error}); it has to be the file that the run wrote."
        ) from error
    theirs = {"fingerprint": record["data"]["fingerprint"], "weights_sha256": record["weights_sha256"]}
    if hashes != theirs:
        raise ValueError(
            f"{path} belongs to other weights or data than the record of {record['run']}: {hashes}, expected {theirs}; "
            "take those of its run, or train it again."
        )
    rows = rows_tested(record, store, slices=slices)
    if masks.shape != (expected := (len(store.table), 1, *store.infection.shape[1:])):
        raise ValueError(f"{path} holds masks of shape {masks.shape}, expected {expected}.")
    return masks[rows, 0], rows
