"""A release, made here as the workflow makes it: packages, weights, checksums, and one version in all of them."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import release
import yaml

import chslib
from chslib.pretrained import FOLDER, available, load_pretrained

ROOT = Path(__file__).resolve().parents[2]
VERSION = chslib.__version__
DATED = "## [{0}] - 2030-01-02\n\n### Added\n\n- Something.\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` leaves, without the environment that it would install."""
    out = tmp_path_factory.mktemp("release") / "dist"
    command = [sys.executable, ROOT / "workflow/release.py", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "workflow/release.py --out _build/dist" in (ROOT / "Makefile").read_text("utf-8")
    return out


def test_the_checksums_are_those_of_wheel_sdist_and_weights(made: Path) -> None:
    told = dict(reversed(line.split("  ")) for line in (made / "SHA256SUMS").read_text().splitlines())
    assert set(told) == {
        f"chslib-{VERSION}-py3-none-any.whl", f"chslib-{VERSION}.tar.gz", f"chslib-weights-{VERSION}.zip",
        f"chslib-onnx-{VERSION}.zip",
    }  # fmt: skip
    assert {p.name for p in made.iterdir()} == {*told, "SHA256SUMS", "NOTES.md"}
    for name, digest in told.items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest
    check = ["sha256sum", "--check", "SHA256SUMS"]
    if shutil.which(check[0]):
        assert subprocess.run(check, cwd=made, capture_output=True).returncode == 0


def test_a_package_built_far_from_git_has_the_same_version_and_files(made: Path, tmp_path: Path) -> None:
    """The sdist unpacked: no .git there, nor above it."""
    shutil.unpack_archive(made / f"chslib-{VERSION}.tar.gz", tmp_path)
    (source,) = tmp_path.iterdir()
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*build, "-w", tmp_path / "out", source],
        check=True,
        capture_output=True,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path)},
    )
    (again,) = (tmp_path / "out").iterdir()
    assert again.name == f"chslib-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(again) as ours, zipfile.ZipFile(made / again.name) as theirs:
        assert ours.namelist() == theirs.namelist()


def test_the_archive_s_weights_load_and_bring_their_card(made: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(made / f"chslib-weights-{VERSION}.zip", tmp_path)
    folder = tmp_path / f"chslib-weights-{VERSION}"
    assert available(folder) == available(FOLDER)
    assert not load_pretrained(folder=folder).training
    card = (folder / "README.md").read_text("utf-8")
    assert "{{" not in card and "non-commercial research only" in card
    for name in available(folder):
        assert json.loads((folder / f"{name}.json").read_text())["sha256"] in card
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    again = release.pack_weights(tmp_path / f"chslib-weights-{VERSION}.zip")
    assert again.read_bytes() == (made / again.name).read_bytes()


def test_changed_weights_are_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(name: str) -> None:
        raise ValueError(f"{name} is damaged")

    monkeypatch.setattr(release, "read_weights", damaged)
    monkeypatch.setattr(release, "build_packages", lambda out: [])
    assert release.main(["--out", str(tmp_path / "dist")]) == 1
    assert not (tmp_path / "dist/SHA256SUMS").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "precious.txt").write_text("")
    assert release.main(["--out", str(tmp_path)]) == 1
    assert "holds something else" in capsys.readouterr().err and (tmp_path / "precious.txt").exists()


# ---- version, tag, changelog, citation ---------------------------------------------------------


def test_the_citation_has_the_package_s_version_and_what_an_archive_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == VERSION
    assert {"title", "abstract", "authors", "keywords", "license", "type", "references"} <= citation.keys()


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    found = release.sections(text)
    assert text.startswith("# Changelog\n") and "Unreleased" in found
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, flags=re.M)) <= kinds
    assert len(re.findall(r"^## ", text, flags=re.M)) == len(found), "a section whose head has another form"
    versions = [[int(n) for n in v.split(".")] for v in found if v != "Unreleased"]
    assert versions == sorted(versions, reverse=True)
    assert [int(n) for n in VERSION.split(".")] >= max(versions, default=[0])


def made_up(root: Path, *, changelog: str, citation: str) -> Path:
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\n## [Unreleased]\n\n{changelog}", encoding="utf-8")
    (root / "CITATION.cff").write_text(citation, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("tag", "changelog", "citation", "told"),
    [
        ("v1.2.3", DATED.format("1.2.3"), "version: 1.2.3\ndate-released: 2030-01-02\n", []),
        ("v1.2.4", DATED.format("1.2.3"), "version: 1.2.3\ndate-released: 2030-01-02\n", ["expected v1.2.3"]),
        ("1.2.3", DATED.format("1.2.3"), "version: 1.2.3\ndate-released: 2030-01-02\n", ["expected v1.2.3"]),
        ("v1.2.3", "", "version: 1.2.3\n", ["no section '## [1.2.3]"]),
        ("v1.2.3", "## [1.2.3] - soon\n\n- A.\n", "version: 1.2.3\ndate-released: soon\n", ["no section"]),
        ("v1.2.3", "## [1.2.3] - 2030-01-02\n", "version: 1.2.3\ndate-released: 2030-01-02\n", ["says nothing of"]),
        ("v1.2.3", DATED.format("1.2.3"), "version: 1.2.2\n", ["has version 1.2.2", "has date-released None"]),
    ],
)  # fmt: skip
def test_a_tag_that_does_not_fit_is_refused(
    tag: str, changelog: str, citation: str, told: list[str], tmp_path: Path
) -> None:
    root = made_up(tmp_path, changelog=changelog, citation=citation)
    found = release.disagreements(tag, root, "1.2.3")
    assert len(found) == len(told) and all(part in line for part, line in zip(told, found)), found


def test_the_notes_are_the_version_s_section() -> None:
    text = f"# Changelog\n\n## [Unreleased]\n\n- Later.\n\n{DATED.format('1.2.3')}\n{DATED.format('1.2.2')}"
    assert release.sections(text) == {
        "Unreleased": (None, "- Later."),
        "1.2.3": ("2030-01-02", "### Added\n\n- Something."),
        "1.2.2": ("2030-01-02", "### Added\n\n- Something."),
    }


# ---- the workflow ------------------------------------------------------------------------------


def test_the_workflow_publishes_on_a_tag_alone_and_what_is_made_here(made: Path) -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]
    for name in ("release", "pypi"):
        assert "github.ref_type == 'tag'" in jobs[name]["if"]
    assert jobs["pypi"]["permissions"] == {"id-token": "write"}  # a trusted publisher: no token is kept
    (publish,) = [step["run"] for step in jobs["release"]["steps"] if "run" in step]
    attached = {p.name for pattern in re.findall(r"dist/(\S+)", publish) for p in made.glob(pattern)}
    assert attached == {p.name for p in made.iterdir()}
    (rest,) = [step["run"] for step in jobs["pypi"]["steps"] if "run" in step]
    removed = {p.name for pattern in re.findall(r"dist/(\S+)", rest) for p in made.glob(pattern)}
    assert {p.suffix for p in made.iterdir() if p.name not in removed} == {".whl", ".gz"}


def test_a_record_names_no_commit_of_another_repository(tmp_path: Path) -> None:
    """An environment inside somebody's repository: its commit is not this code's."""
    site = tmp_path / "site"
    for package in ("chslib", "replication"):
        shutil.copytree(
            ROOT / package, site / package, ignore=shutil.ignore_patterns("weights", "__pycache__")
        )
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q", tmp_path], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], cwd=tmp_path, check=True)
    code = "from replication.provenance import environment; e = environment(); print(e['commit'], e['versions']['chslib'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={k: v for k, v in os.environ.items() if k != "CHSLIB_COMMIT"} | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.stdout.split() == ["unknown", VERSION], done.stderr
