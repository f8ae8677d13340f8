"""Which slices train, validate and test, under two protocols.

* "slice", the paper's (Sec. 4.2): a random 70/30 split of slices, stratified by source, with the
  validation part one of five folds inside the 70 % (register rows 13 and 14). Neighbouring
  slices of one patient end up on both sides.
* "patient", the honest one: five folds of whole patients, balanced by infected area. Fold k
  tests, fold k+1 validates, the other three train. With fewer than five patients
  each is a fold.

`leaks` counts what the first lets through.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

PROTOCOLS = ("slice", "patient")
FOLDS = 5
LEAST_PATIENTS = 3  # one trains, one validates, one tests


@dataclass(frozen=True)
class Split:
    """Row numbers of the store's table; the three parts cover it and do not overlap."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def persons(table: pd.DataFrame) -> np.ndarray:
    """Whom each slice shows: its patient, or, where a slice of that patient is a copy
    (`duplicate_of`), the patient of the original, for all slices of the former.

    One copied slice suffices: two names whose scans coincide somewhere are one body.
    """
    own = table["patient"].to_numpy(dtype=object)
    if "duplicate_of" not in table:
        return own
    patient_of = dict(zip(table["slice_id"], own))
    same_as: dict[str, str] = {}

    def first(name: str) -> str:
        while name in same_as:
            name = same_as[name]
        return name

    for copy, original in zip(own, table["duplicate_of"]):
        a, b = first(copy), first(patient_of.get(original, copy))
        if a != b:
            same_as[a] = b
    return np.array([first(name) for name in own], dtype=object)


def patient_folds(table: pd.DataFrame, *, folds: int = FOLDS) -> dict[str, int]:
    """Fold of each patient, dealt in rounds so that every fold holds as many patients as any other
    (give or take one): in each round the largest infected area goes to the fold that holds least.

    Balancing the area alone would leave the patient with a quarter of all infected pixels alone in
    a fold, and a test on one patient says nothing of the next.

    A scan that is in the store twice counts twice in its patient's area, as it does in training
    and in every pooled metric.

    With fewer patients than folds there are as many folds as patients, each of one.

    Deterministic: ties go by patient name and fold number; no seed is involved, so that every run
    of every network shares the folds.

    Raises:
        ValueError: fewer than three patients, or no `infection_pixels` column.
    """
    if "infection_pixels" not in table:
        raise ValueError(
            "The store's slices.csv has no infection_pixels column; patient folds are balanced by it."
        )
    area = table["infection_pixels"].groupby(persons(table)).sum()
    if len(area) < LEAST_PATIENTS:
        raise ValueError(
            f"The store holds {len(area)} patients ({', '.join(area.index)}); patients apart need {LEAST_PATIENTS}: one to "
            "train on, one to validate, one to test. What is possible: more patients, or random slices "
            "(--protocol slice), whose scores say nothing of a new patient."
        )
    folds = min(folds, len(area))
    patients = sorted(area.index, key=lambda p: (-area[p], p))
    load = dict.fromkeys(range(folds), 0)  # infected pixels
    assigned = {}
    for start in range(0, len(patients), folds):
        open_folds = sorted(load, key=lambda f: (load[f], f))
        for patient, fold in zip(patients[start : start + folds], open_folds):
            assigned[patient] = fold
            load[fold] += int(area[patient])
    return assigned


def split_slices(table: pd.DataFrame, *, seed: int, fold: int = 0, folds: int = FOLDS) -> Split:
    """The paper's protocol: 30 % of each source's slices test, a fifth of the rest validates."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for _, rows in sorted(table.groupby("source").indices.items()):
        order = rng.permutation(rows)
        n_test = round(0.3 * len(order))
        rest = np.array_split(order[n_test:], folds)
        parts["test"].append(order[:n_test])
        parts["validation"].append(rest[fold])
        parts["train"].extend(part for i, part in enumerate(rest) if i != fold)
    return Split(**{name: np.sort(np.concatenate(rows)) for name, rows in parts.items()})


def split_patients(table: pd.DataFrame, *, fold: int, folds: int = FOLDS) -> Split:
    """The honest protocol: no patient on two sides."""
    fold_of = patient_folds(table, folds=folds)
    folds = max(fold_of.values()) + 1
    if fold >= folds:
        raise ValueError(
            f"fold {fold}: the store holds {folds} patients, one a fold; expected fold 0 to {folds - 1}."
        )
    of_row = np.array([fold_of[person] for person in persons(table)])
    validation = (fold + 1) % folds
    return Split(
        train=np.flatnonzero((of_row != fold) & (of_row != validation)),
        validation=np.flatnonzero(of_row == validation),
        test=np.flatnonzero(of_row == fold),
    )


def check_split(table: pd.DataFrame, split: Split, *, by_patient: bool) -> None:
    """Refuse a split that overlaps, leaves a part empty, or, if promised otherwise, shares a patient.

    A copy counts as its original's patient, see `persons`.

    Raises:
        ValueError: naming what crosses: the patients, and the copied slices among them.
    """
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    if empty := [name for name, rows in parts.items() if len(rows) == 0]:
        raise ValueError(
            f"The {' and '.join(empty)} part of the split is empty; the store has {len(table)} slices."
        )
    together = np.concatenate(list(parts.values()))
    if len(np.unique(together)) != len(together):
        raise ValueError("The split puts the same slice in two parts; each slice must be in exactly one.")
    if not by_patient:
        return
    patient = persons(table)
    groups = {name: set(patient[rows]) for name, rows in parts.items()}
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if shared := groups[a] & groups[b]:
            copies = _crossing_copies(table, parts[a], parts[b])
            raise ValueError(
                f"Patient {', '.join(sorted(shared))} is in both {a} and {b}; "
                "the patient protocol promises that none crosses (a duplicate counts as its original)."
                + (f" Slices: {_some(copies)}." if copies else "")
            )


def _crossing_copies(table: pd.DataFrame, *parts: np.ndarray) -> list[str]:
    """`copy = original` for each copied slice with its original in the other part."""
    if "duplicate_of" not in table:
        return []
    sides = [set(table["slice_id"].iloc[rows]) for rows in parts]
    pairs = zip(table["slice_id"], table["duplicate_of"])
    return [
        f"{copy} = {original}"
        for copy, original in pairs
        if any(copy in here and original in there for here, there in (sides, sides[::-1]))
    ]


def _some(names: list[str], *, most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def leaks(table: pd.DataFrame, split: Split) -> pd.DataFrame:
    """How many test slices the training part gives away, a row a reason.

    * "patient": another slice of its patient (column `patient`, as named) is in train.
    * "neighbour": so is the slice before or after it (slice_index -1 or +1 of its volume).
    * "duplicate": so is the same slice under another name: its original, its copy, or another copy
      of its original. A copy whose own original was dropped stands for the nearest
      (`duplicates.find_duplicates`).
    * "any": at least one of these.

    Validation slices count as neither train nor test.

    Returns:
        index `leak`; columns `slices` (count), `of` (test slices), `share`.
    """
    ids = table["slice_id"].to_numpy(dtype=object)
    volume = table["volume"].to_numpy(dtype=object)
    index = table["slice_index"].to_numpy()
    patient = table["patient"].to_numpy(dtype=object)
    scan = ids
    if "duplicate_of" in table:
        scan = np.where(table["duplicate_of"].isin(set(ids)), table["duplicate_of"], ids)

    trained_patients = set(patient[split.train])
    trained = set(zip(volume[split.train], index[split.train]))
    shown_in: dict[str, set] = {}
    for row in split.train:
        shown_in.setdefault(scan[row], set()).add(volume[row])
    told = pd.DataFrame(
        {
            "patient": [patient[r] in trained_patients for r in split.test],
            "neighbour": [
                bool({(volume[r], index[r] - 1), (volume[r], index[r] + 1)} & trained) for r in split.test
            ],
            "duplicate": [bool(shown_in.get(scan[r], set()) - {volume[r]}) for r in split.test],
        },
        dtype=bool,
    )
    told["any"] = told.any(axis=1)
    counts = pd.DataFrame({"slices": told.sum().astype(int), "of": len(split.test)})
    counts["share"] = counts["slices"] / max(len(split.test), 1)
    return counts.rename_axis("leak")


def make_split(table: pd.DataFrame, *, protocol: str, fold: int, seed: int) -> Split:
    """The split of one run, checked.

    Args:
        table: the store's table.
        protocol: "slice" or "patient".
        fold: 0..4: the validation fold (slice) or the test fold (patient).
        seed: of the random 70/30 split; unused by the patient protocol.

    Raises:
        ValueError: an unknown protocol or fold; see also `check_split` and `patient_folds`.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r}; expected one of {PROTOCOLS}.")
    if not 0 <= fold < FOLDS:
        raise ValueError(f"fold={fold}; expected 0..{FOLDS - 1}.")
    if protocol == "slice":
        split = split_slices(table, seed=seed, fold=fold)
    else:
        split = split_patients(table, fold=fold)
    check_split(table, split, by_patient=protocol == "patient")
    return split
