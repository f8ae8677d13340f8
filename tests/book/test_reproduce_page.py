"""Every command of book/reproduce.md does what the page says, or passes a check that is named here.

Commands run in the page's order in a copy of the repository, whose .venv is this environment. What takes
long, needs a network or needs root has a shorter command in its place, in `STANDS_FOR`.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from replication.data.phantom.volumes import make_volume, mixed_volumes

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book/reproduce.md"
PARTS = ("chslib", "replication", "notebooks", "book", "workflow", "results/cpu", "Snakefile", "Makefile",
         "benchmarks", "pyproject.toml", "requirements.lock", "environment.yml", "_toc.yml", "_config.yml", ".gitignore", "CITATION.cff")  # fmt: skip

SMOKE = ".venv/bin/snakemake -n --profile workflow/local --cores 2 --resources gpu=2 --config profile=smoke"
SLURM = ".venv/bin/snakemake -n --profile workflow/slurm --config profile=smoke scope=headline"
CONDA = "grep -qx 'name: chs-net' environment.yml"  # tests/test_environment.py compares the rest
SCRIPT = "bash -n workflow/one_node_slurm.sh"
LEAK = (  # five patients or more
    ".venv/bin/chs-net data fuse --published scans/volumes scans/many --size 64 --quiet && "
    ".venv/bin/chs-net measure leak --slices scans/many --size 64"
)
# What each make command hands to Snakemake, and what Snakemake then plans.
STANDS_FOR = {
    "make reproduce": f"make -n reproduce && {SMOKE} runs=table2-infection-patient-fold0",
    "make grid": "make -n grid",
    "make grid SCOPE=all PROFILE=paper SLICES=data/official/slices":
        "make -n grid SCOPE=all PROFILE=paper SLICES=scans/slices",
    'make grid RUNS="table4-bu table4-rib" PROFILE=cpu SLICES=data/official/slices':
        'make -n grid RUNS="table4-bu table4-rib" PROFILE=cpu SLICES=scans/slices',
    "make reproduce PROFILE=paper SLICES=data/official/slices":
        "make -n reproduce PROFILE=paper SLICES=scans/slices",
    "make book": "make -n book REPOSITORY=owner/name",  # built in tests/test_book.py
    "make test": "make -n test",
    "conda env create -f environment.yml": CONDA,
    "conda activate chs-net": CONDA,
    ".venv/bin/jupyter lab notebooks": ".venv/bin/jupyter lab --version",
    # The declared parameters; a whole training is run further down the page, on the drawn scans.
    ".venv/bin/papermill notebooks/05_training.ipynb run.ipynb -p run table5-hp-lungs -p profile smoke":
        ".venv/bin/papermill --help-notebook notebooks/05_training.ipynb | grep -E '^ *(run|profile): str'",
    ".venv/bin/chs-net data download data/official":
        ".venv/bin/chs-net data download --help",
    ".venv/bin/chs-net data fuse --published data/official/volumes data/official/slices --workers 2":
        ".venv/bin/chs-net data fuse --help",
    ".venv/bin/snakemake --profile workflow/slurm --config profile=paper slices=data/official/slices scope=all":
        SLURM.replace("profile=smoke scope=headline", "profile=paper slices=scans/slices scope=all"),
    ".venv/bin/snakemake --profile workflow/slurm --config profile=smoke scope=headline": SLURM,
    ".venv/bin/chs-net campaign --profile paper --slices data/official/slices --minutes 55":
        ".venv/bin/chs-net campaign --help",
    ".venv/bin/chs-net campaign --profile paper --slices data/official/slices --minutes 13 --not-repeatable --pack runs/lent "
    "--names table4-full table4-rib":  # tests/training/test_campaign.py runs it
        ".venv/bin/chs-net campaign --help | grep -e --pack",
    "make reproduce SCOPE=none": "make -n reproduce SCOPE=none",
    "make book REPOSITORY=OWNER/NAME": "make -n book REPOSITORY=OWNER/NAME",
    ".venv/bin/python book/first_cell.py --write": ".venv/bin/python book/first_cell.py --check",
    ".venv/bin/python -m benchmarks --slices data/official/slices": ".venv/bin/python -m benchmarks --help",
    ".venv/bin/python -m benchmarks pooling step": ".venv/bin/python -m benchmarks --help",
    ".venv/bin/chs-net measure thresholds table2-lungs-patient-fold0 --profile cpu --slices data/official/slices":
        # A small network stands for the run; a committed record of the same name is in nobody's way.
        ".venv/bin/chs-net data fuse scans/ward scans/early --lung-labels 2,3 --quiet && "
        ".venv/bin/chs-net train table3-miniseg --profile cpu --slices scans/early --protocol slice && "
        ".venv/bin/chs-net measure thresholds table3-miniseg --profile cpu --slices scans/early",
    ".venv/bin/chs-net measure leak --slices data/official/slices": LEAK,
    ".venv/bin/chs-net measure contrast --slices data/official/slices":
        ".venv/bin/chs-net measure contrast --slices scans/slices --size 64",
    "sudo workflow/one_node_slurm.sh": SCRIPT,
    "sudo workflow/one_node_slurm.sh stop": SCRIPT,
}  # fmt: skip
TRAINED = "runs/local/smoke/table2-infection-patient-fold0"
RUN = (
    ".venv/bin/papermill --help-notebook notebooks/05_training.ipynb",
    ".venv/bin/papermill notebooks/06_table2.ipynb table2.ipynb",
    ".venv/bin/chs-net list",
    ".venv/bin/chs-net data phantom scans/volumes --size 64 --depth 8",
    ".venv/bin/chs-net segment scans/volumes/ct/coronacases_001.nii.gz scans/masks",
    ".venv/bin/chs-net data fuse scans/ward scans/slices --preparation window --lung-labels 2,3 "
    '--name "Ward 7" --licence "not to be passed on"',
    ".venv/bin/chs-net data check scans/slices",
    ".venv/bin/chs-net train table2-infection --profile smoke --slices scans/slices",
    f".venv/bin/chs-net segment scans/ward/ct/P-020/thorax.nii.gz scans/ward-masks --weights {TRAINED}",
    ".venv/bin/chs-net weights list --weights runs/local",
    f".venv/bin/chs-net weights export scans/weights --weights {TRAINED}",
    ".venv/bin/papermill notebooks/05_training.ipynb own.ipynb -p run table2-infection -p profile smoke "
    '-p slices "$PWD/scans/slices"',
    ".venv/bin/snakemake -n --profile workflow/local --cores 2",
    ".venv/bin/chs-net segment scans/volumes/ct --dry-run",
)  # fmt: skip
# What must lie in the copy afterwards.
LEFT = {
    RUN[1]: "table2.ipynb", RUN[3]: "scans/volumes/ct", RUN[4]: "scans/masks/report.json",
    RUN[5]: "scans/slices/slices.csv", RUN[7]: f"results/local/{TRAINED.removeprefix('runs/local/')}.json",
    RUN[8]: "scans/ward-masks/infection.nii.gz", RUN[10]: "scans/weights/smoke", RUN[11]: "own.ipynb",
}  # fmt: skip
SCANS = ("P-017/base", "P-017/follow.up", "P-020/thorax", "Mrs_K/ct1")  # by a lab's own names; three patients


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced code block of a page."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.M | re.S)


def commands(text: str) -> list[str]:
    """Every command of the page, in order: shell lines without comments, and Python blocks whole."""
    found = []
    for language, content in blocks(text):
        if language == "python":
            found.append(content)
        elif language == "bash":
            lines = content.replace("\\\n", " ").splitlines()
            found += [" ".join(re.sub(r"\s#.*", "", line).split()) for line in lines if line.strip()]
    return found


def unknown(text: str) -> tuple[set[str], set[str]]:
    """Commands that only the page has, and those that only this file has."""
    shell = {c for c in commands(text) if "\n" not in c}
    return shell - {*RUN, *STANDS_FOR}, {*RUN, *STANDS_FOR} - shell


COMMANDS = commands(PAGE.read_text(encoding="utf-8"))


def test_every_command_of_the_page_is_known_here() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert unknown(text) == (set(), set())
    assert {language for language, _ in blocks(text)} <= {"bash", "python", "text"}
    assert unknown(text + "\n```bash\nmake tea  # a comment\n```\n")[0] == {"make tea"}
    assert unknown(text.replace("make grid\n", "\n"))[1] == {"make grid"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository; its .venv is this environment, and counts as installed."""
    copy = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        source, target = ROOT / part, copy / part
        if source.is_dir():
            shutil.copytree(
                source, target, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            )
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (copy / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".installed":
            (copy / ".venv" / entry.name).symlink_to(entry)
    (copy / ".venv/.installed").touch()
    subprocess.run(["git", "init", "-q", copy], check=True)
    subprocess.run(["git", "-C", copy, "add", "--all"], check=True)  # what is committed
    annotate(copy / "scans" / "ward")
    return copy


def annotate(ward: Path) -> None:
    """Four drawn scans as a lab has them: its own names, affine and labels, and no word of a phantom in them."""
    drawn = mixed_volumes(len(SCANS))
    for name, of in zip(SCANS, drawn, strict=True):
        volume = make_volume(name=of, seed=0, size=64, depth=10)
        lung, infection = (volume.lung > 0) * (1 + volume.lung), (volume.infection > 0) * 255
        for part, voxels in (("ct", volume.ct), ("lung", lung), ("infection", infection)):
            path = ward / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([-4.7, 4.7, 25, 1])), path)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c.split())[:60])
def test_a_command_of_the_page_works(command: str, checkout: Path) -> None:
    if "\n" in command:
        shell = f".venv/bin/python -c {shlex.quote(command)}"
    else:
        shell = STANDS_FOR.get(command, command)
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "PROFILE")}
    environment |= {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                    "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PLATFORM_DIRS": "1"}  # fmt: skip
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shell], cwd=checkout, env=environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{shell}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    if command in LEFT:
        assert (checkout / LEFT[command]).exists()


def outputs(notebook: Path) -> str:
    """All text that an executed notebook shows."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return json.dumps(
        [o.get("text", o.get("data", {}).get("text/plain")) for c in cells for o in c.get("outputs", [])]
    )


def test_what_the_page_s_own_network_says_of_itself_is_true(checkout: Path) -> None:
    report = json.loads((checkout / "scans/ward-masks/report.json").read_text())
    sidecar = json.loads((checkout / "scans/weights/smoke" / f"{Path(TRAINED).name}.json").read_text())
    record = json.loads((checkout / f"results/local/{TRAINED.removeprefix('runs/local/')}.json").read_text())
    for told in (report["weights"], sidecar):
        assert "--preparation window` makes them, [-1250, 250] HU" in told["preparation"]
        assert told["licence"] == "Trained on Ward 7: not to be passed on. Not for clinical use."
    assert (
        report["weights"]["sha256"]["infection"]
        == record["weights_sha256"]
        == sidecar["record"]["weights_sha256"]
    )
    people = {part: set(of["patients"]) for part, of in record["data"]["split"].items()}
    assert sorted(map(len, people.values())) == [1, 1, 1] and len(set.union(*people.values())) == 3
    assert sidecar["trained_on"]["without_infection"] > 0
    assert not any("never saw" in warning for warning in report["warnings"])
    shown = outputs(checkout / "own.ipynb")
    assert "Ward 7" in shown and "patient protocol" in shown
    for text in (json.dumps(report), json.dumps(sidecar), shown):
        assert not re.search("phantom|synthetic|drawn|minmax|Ma et al|real slices", text)
    assert not any(name.split("/")[0] in json.dumps(sidecar) for name in SCANS)


def test_nothing_that_the_page_s_commands_wrote_could_be_committed(checkout: Path) -> None:
    new = ["git", "-C", checkout, "ls-files", "--others", "--exclude-standard"]
    assert subprocess.run(new, capture_output=True, text=True, check=True).stdout.split() == []
