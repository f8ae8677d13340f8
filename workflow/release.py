"""What a release consists of: wheel, sdist, the weights with their model card, the default cascade as ONNX, checksums, and its notes.

    python workflow/release.py --out _build/dist                 # make dist
    python workflow/release.py --out _build/dist --tag v0.1.0    # refused where tag, version or changelog disagree

Everything is built from what Git tracks, or, where there is no .git, from the folder as it is. The version stands in
chslib/__init__.py alone; a tag and CHANGELOG.md have to name it.
"""

import argparse
import datetime
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "book")]

from model_card import Card  # noqa: E402
from page_numbers import Numbers  # noqa: E402

import chslib  # noqa: E402
from chslib.pretrained import DEFAULT, FOLDER, available, read_weights  # noqa: E402
from replication.scans.onnx_export import export_onnx  # noqa: E402

SECTION = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\S+))?$", re.M)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date of a zip: the same weights are the same archive


def sections(changelog: str) -> dict[str, tuple[str | None, str]]:
    """CHANGELOG.md's sections: version -> its date, None for what is unreleased, and its text."""
    found = list(SECTION.finditer(changelog))
    ends = [match.start() for match in found[1:]] + [len(changelog)]
    return {m["version"]: (m["date"], changelog[m.end() : end].strip()) for m, end in zip(found, ends)}


def disagreements(tag: str, root: Path = ROOT, version: str = chslib.__version__) -> list[str]:
    """In what a tag, the version, CHANGELOG.md and CITATION.cff do not fit together, a line each."""
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, chslib/__init__.py says {version}; expected v{version}")
    date, text = sections((root / "CHANGELOG.md").read_text("utf-8")).get(version, (None, ""))
    try:
        datetime.date.fromisoformat(date or "")
    except ValueError:
        found.append(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD'")
    if date and not text:
        found.append(f"CHANGELOG.md says nothing of {version}")
    citation = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
    for key, expected in (("version", version), ("date-released", date)):
        if expected and (told := str(citation.get(key))) != expected:
            found.append(f"CITATION.cff has {key} {told}, expected {expected}")
    return found


def clean_copy(root: Path, target: Path) -> Path:
    """The package's sources as Git has them, so that no leftover of this folder gets in."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if done.returncode or not done.stdout:  # an unpacked archive
        names = [p.relative_to(root) for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    else:
        names = [Path(name) for name in filter(None, done.stdout.split("\0"))]
    for name in names:
        if name.parts[0] in ("chslib", "replication") or len(name.parts) == 1:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)
    return target


def build_packages(out: Path, root: Path = ROOT) -> list[Path]:
    """Wheel and sdist, with the setuptools of this environment: nothing is fetched.

    Raises:
        ValueError: they were not built; it holds what setuptools said.
    """
    code = (
        "import sys; from setuptools.build_meta import *; to = sys.argv[1]; build_sdist(to); build_wheel(to)"
    )
    with tempfile.TemporaryDirectory() as folder:
        source = clean_copy(root, Path(folder))
        done = subprocess.run([sys.executable, "-c", code, out], cwd=source, capture_output=True, text=True)
    found = [*out.glob("*.whl"), *out.glob("*.tar.gz")]
    if done.returncode or len(found) != 2:
        raise ValueError(f"the packages were not built:\n{done.stderr}")
    return found


def pack_weights(path: Path, root: Path = ROOT) -> Path:
    """Every committed network with its sidecar, the model card and the licence, each checksum checked.

    Raises:
        ValueError: a file that differs from its sidecar's checksum.
    """
    card = Numbers(root).filled((root / "book/model_card.md").read_text("utf-8"))
    members = {"README.md": card.encode(), "LICENSE": (root / "LICENSE").read_bytes()}
    for name in available(FOLDER):
        read_weights(name)
        for suffix in (".safetensors", ".json"):
            members[name + suffix] = (FOLDER / f"{name}{suffix}").read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}", EPOCH), content, zipfile.ZIP_DEFLATED)
    return path


def pack_networks(path: Path) -> Path:
    """The default cascade as ONNX, its licence inside each file."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path, "w") as archive:
        for file in export_onnx(DEFAULT, folder):
            info = zipfile.ZipInfo(f"{path.stem}/{file.name}", EPOCH)
            archive.writestr(info, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def write_checksums(path: Path, files: list[Path]) -> Path:
    """What `sha256sum --check` reads."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def make(out: Path) -> list[Path]:
    """All of it into `out`, anew; returns the files.

    Raises:
        ValueError: something else lies in `out`; or see `build_packages`, `pack_weights`.
    """
    if out.exists() and any(out.iterdir()) and not (out / "SHA256SUMS").is_file():
        raise ValueError(f"{out} holds something else than a release; name an empty folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    version = chslib.__version__
    files = [
        *build_packages(out),
        pack_weights(out / f"chslib-weights-{version}.zip"),
        pack_networks(out / f"chslib-onnx-{version}.zip"),
    ]
    changes = sections((ROOT / "CHANGELOG.md").read_text("utf-8"))
    _, notes = changes.get(version) or changes["Unreleased"]
    (out / "NOTES.md").write_text(
        f"{notes}\n\n### Weights\n\n{Card(ROOT).part('checksums')}\n", encoding="utf-8"
    )
    return [*files, write_checksums(out / "SHA256SUMS", files)]


def main(arguments: list[str] | None = None) -> int:
    """Check and build; 0 if all is well, 1 with lines on stderr if not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write, emptied first")
    parser.add_argument("--tag", help="that is released; without one nothing is compared")
    options = parser.parse_args(arguments)
    wrong = disagreements(options.tag) if options.tag else []
    try:
        files = make(options.out.resolve()) if not wrong else []
    except (FileNotFoundError, ValueError) as error:
        wrong = [str(error)]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    if wrong:
        return 1
    for file in files:
        print(f"{file.stat().st_size / 1e6:6.1f} MB  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
