# Does nothing where this book is installed. Where a notebook stands alone (Colab, say) it fetches the
# repository and installs what is missing, and nothing in place of what is there: torch and numpy stay.
# fmt: off
def prepare(repository):
    import importlib.metadata
    import importlib.util
    import os
    import re
    import subprocess
    import sys
    import tempfile
    import tomllib
    from pathlib import Path

    needed = (
        "torch", "numpy", "lightning", "monai", "safetensors", "scipy", "pandas", "nibabel", "pillow",
        "scikit-image", "opencv-python-headless", "pooch", "requests", "filelock", "tqdm", "matplotlib",
        "highdicom", "pydicom", "threadpoolctl",
    )  # fmt: skip
    here = {}
    for name in needed:
        try:
            here[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    missing = [name for name in needed if name not in here]
    if not missing and importlib.util.find_spec("replication"):
        return

    above = (Path.cwd(), *Path.cwd().parents)
    root = next((f for f in above if (f / "_toc.yml").is_file() and (f / "replication").is_dir()), None)
    if root is None:
        if not repository:
            raise RuntimeError(
                "This notebook stands alone and does not know its repository: set repository-code in "
                "CITATION.cff, run `python book/first_cell.py --write`, and commit the notebooks."
            )
        root = Path.cwd() / repository.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
        if not root.is_dir():
            subprocess.run(["git", "clone", "--quiet", "--depth", "1", repository, str(root)], check=True)
        os.chdir(root / "notebooks")
    if missing:
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        declared = [*project["dependencies"], *project["optional-dependencies"]["study"]]
        wanted = [line for line in declared if re.match(r"[\w.-]+", line)[0] in missing]
        kept = [f"{name}=={version}" for name, version in here.items()]
        print("installing", *wanted, "and keeping", *kept)
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder, "constraints.txt")
            constraints.write_text("\n".join(kept) + "\n")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
            subprocess.run([*pip, *wanted], check=True)
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    importlib.invalidate_caches()


prepare(repository="")
del prepare
