# The grid as a graph: phantom -> fuse -> train, one job a run -> tables -> book -> report.
#
#   snakemake --profile workflow/local --cores 2 --resources gpu=2            (make grid does it)
#   snakemake --profile workflow/slurm --config profile=paper slices=/folder scope=all
#
# --config, each with its default:
#   profile=smoke    a key of replication.training.profiles.PROFILES
#   slices=          folder of a slice store; empty: the phantom, made on the spot (smoke only)
#   results=         folder of the records; empty: results, with slices results/local
#   scope=rows       headline, rows or all (replication.training.grid.campaign), or none: pages alone
#   runs=            names of runs in place of a scope; the first stages that they need come along
#   weights=         folder of the checkpoints and predictions; empty: runs, with slices runs/local
#   build=           folder of what is made here; empty: _build/<profile>
#
# Records and weights are no outputs: Snakemake deletes what a killed job was writing. A run's output is
# a marker, <build>/grid/<run>.txt. A run that fails says so in its marker and ends well, so that tables
# and book are made of what there is; the report, which comes last, then lists it and fails. The next
# call drops such markers, and those whose record is gone: only what is missing is run.

import fcntl
import shlex
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
sys.path[:0] = [str(ROOT), str(ROOT / "workflow")]

import steps

from replication.training.grid import campaign, get_run, with_first_stages
from replication.training.profiles import get_profile

# ---- what is asked for -------------------------------------------------------------------------

PROFILE = str(config.get("profile") or "smoke")
SLICES = str(config.get("slices") or "")
SCOPE = str(config.get("scope") or "rows")
BUILD = str(config.get("build") or f"_build/{PROFILE}")
MINE = "/local" if SLICES else ""  # beside the committed records and what the synthetic slices gave
RESULTS = str(config.get("results") or f"results{MINE}")
WEIGHTS = str(config.get("weights") or f"runs{MINE}")
PHANTOM = "data/phantom"
STORE = f"{SLICES or PHANTOM + '/slices'}/slices.csv"
GRID = f"{BUILD}/grid"
PY = shlex.quote(sys.executable)
STEPS = f"{PY} {shlex.quote(str(ROOT / 'workflow/steps.py'))}"

try:
    get_profile(PROFILE)
    asked = config.get("runs") or ""
    asked = asked.replace(",", " ").split() if isinstance(asked, str) else asked
    asked = asked or ([] if SCOPE == "none" else campaign(SCOPE))
    RUNS = with_first_stages(asked)  # in the order of their worth
except ValueError as error:
    raise WorkflowError(str(error)) from None
if PROFILE != "smoke" and not SLICES:
    raise WorkflowError(f"profile={PROFILE} needs a slice store: --config slices=folder (README.md says how to make one).")
if SLICES and not Path(STORE).is_file():
    raise WorkflowError(f"{STORE} is missing; slices= names no slice store (README.md says how to make one).")

FIRST = {name: get_run(name).first_stage for name in RUNS}
PLACES = steps.Places(grid=GRID, results=f"{RESULTS}/{PROFILE}", weights=f"{WEIGHTS}/{PROFILE}")
if workflow.is_main_process:
    # Held until this process ends, however it ends; Snakemake's own lock outlives a kill (nolock in the profiles).
    Path(BUILD).mkdir(parents=True, exist_ok=True)
    LOCK = open(f"{BUILD}/lock", "w")
    try:
        fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
        steps.drop_stale(FIRST, PLACES)
    except OSError:
        if not workflow.dryrun:
            raise WorkflowError(f"{BUILD}: another Snakemake is at work there; wait for it, or end it first.") from None

# ---- how wide ----------------------------------------------------------------------------------

# Trainings at a time: as many as there are GPUs to be had (--resources gpu=N; without one, N is the
# number of cores). Each gets its share of the cores: two runs with a core each end sooner than one
# after the other with two.
def train_threads() -> int:
    if config.get("threads"):
        return int(config["threads"])
    cores = workflow.resource_settings.cores or 1
    limit = workflow.global_resources.get("gpu")
    limit = getattr(limit, "value", limit) or cores
    width = max(1, sum(not first for first in FIRST.values()), sum(bool(first) for first in FIRST.values()))
    return max(1, cores // min(cores, limit, width))


THREADS = train_threads()

# ---- pages -------------------------------------------------------------------------------------

toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [page for page in steps.notebooks_of(toc, ROOT) if page != "05_training"]  # that one is each run's own
READS = {page: steps.parameters(ROOT / "notebooks" / f"{page}.ipynb") for page in [*PAGES, "05_training"]}
GIVEN = {
    "profile": PROFILE, "results": Path(RESULTS).absolute(), "runs": Path(WEIGHTS).absolute(),
    "slices": Path(STORE).parent.absolute(),
}  # fmt: skip
ALONE = ("12_speed",)  # it measures: nothing else has a core or the GPU meanwhile
CODE = sorted(str(path) for package in ("chslib", "replication") for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".csv"))
# Records that no job here writes: trained by hand, on another machine, or for another scope.
OTHERS = sorted(str(path) for path in Path(PLACES.results).glob("*.json") if path.stem not in FIRST)


def given(page: str) -> str:
    """Options that hand a notebook those of our values that it has parameters for."""
    return " ".join(f"--parameter {k} {shlex.quote(str(v))}" for k, v in GIVEN.items() if k in READS[page])


wildcard_constraints:
    run=r"[\w-]+",
    page=r"\d\d_\w+",


localrules:
    all,
    trained,


# ---- rules -------------------------------------------------------------------------------------


rule all:
    input:
        book=f"{BUILD}/_build/html/index.html",
        runs=[PLACES.marker(name) for name in RUNS],
    params:
        places=PLACES.options(),
    shell:
        "exec {STEPS} report {params.places} --book {input.book} {RUNS}"


rule trained:
    input:
        [PLACES.marker(name) for name in RUNS],
    params:
        places=PLACES.options(),
    shell:
        "exec {STEPS} report {params.places} {RUNS}"


rule phantom:
    input:
        sorted((ROOT / "replication/data/phantom").glob("*.py")),
    output:
        directory(f"{PHANTOM}/volumes"),
    shell:
        "exec {PY} -m replication data phantom {output}"


rule fuse:
    input:
        volumes=f"{PHANTOM}/volumes",
        code=ROOT / "replication/data/fusing/fusion.py",
    output:
        f"{PHANTOM}/slices/slices.csv",
    shell:
        "exec {PY} -m replication data fuse --published --quiet {input.volumes} {PHANTOM}/slices"


# A folder that someone else made is checked once, before anything is trained on it.
rule check:
    input:
        STORE,
    output:
        touch(f"{BUILD}/checked"),
    params:
        slices=shlex.quote(SLICES),
    shell:
        "exec {PY} -m replication data check {params.slices} --profile {PROFILE}"


rule train:
    input:
        store=STORE,
        checked=[f"{BUILD}/checked"] if SLICES else [],
        first=lambda w: PLACES.marker(FIRST[w.run]) if FIRST.get(w.run) else [],
    output:
        PLACES.marker("{run}"),
    params:
        places=PLACES.options(),
        first=lambda w: f"--first {FIRST[w.run]}" if FIRST.get(w.run) else "",
        given=given("05_training"),
        protocol=lambda w: get_run(w.run).protocol,  # the grid's, also on scans of one's own
    priority: lambda w: len(RUNS) - RUNS.index(w.run)  # the headline first
    threads: THREADS
    resources:
        gpu=1,
    log:
        f"{GRID}/{{run}}.log",
    shell:
        "exec {STEPS} train {wildcards.run} {params.places} {params.first} --log {log}"
        " --parameter run {wildcards.run} --parameter protocol {params.protocol} {params.given}"


rule page:
    input:
        store=ancient(STORE),
        notebook=ROOT / "notebooks/{page}.ipynb",
        code=CODE,
        runs=lambda w: [PLACES.marker(name) for name in RUNS] if "results" in READS[w.page] else [],
        others=lambda w: OTHERS if "results" in READS[w.page] else [],
    output:
        f"{BUILD}/pages/{{page}}.ipynb",
    params:
        given=lambda w: given(w.page),
    threads: lambda w: workflow.resource_settings.cores or 1 if w.page in ALONE else 1
    resources:
        gpu=lambda w: int(w.page in ALONE),
    log:
        f"{BUILD}/pages/{{page}}.log",
    shell:
        "exec {STEPS} page {wildcards.page} --out {output} --log {log} {params.given}"


rule book:
    input:
        pages=[f"{BUILD}/pages/{page}.ipynb" for page in PAGES],
        runs=[PLACES.marker(name) for name in RUNS],
        sources=[ROOT / "_toc.yml", ROOT / "_config.yml", *sorted((ROOT / "book").glob("*.*"))],
    output:
        f"{BUILD}/_build/html/index.html",
    params:
        places=PLACES.options(),
    shell:
        "exec {STEPS} book {params.places} --out {BUILD} {input.pages}"
