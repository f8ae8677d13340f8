"""Where and with what something was run, and a digest that tells a record which was changed by hand."""

import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chslib import __version__


def _commit() -> str:
    """The commit of this code; where it was copied without its .git, what CHSLIB_COMMIT says.

    An installed package has none, though the environment around it may lie in somebody's repository.
    """
    if stated := os.environ.get("CHSLIB_COMMIT"):
        return stated
    here = Path(__file__).resolve().parent
    try:
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=here,
            capture_output=True,
            check=True,
        )
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--", "chslib", "replication"],
            cwd=here.parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("-modified" if dirty.stdout.strip() else "")


def environment() -> dict[str, Any]:
    """Versions, device and threads, for a record."""
    import lightning as L  # seconds to import, and a reader of records needs none of it

    cuda = torch.cuda.is_available()
    processor = platform.machine()
    if Path("/proc/cpuinfo").is_file():
        names = [
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        processor = names[0] if names else processor
    return {
        "commit": _commit(),
        "versions": {
            "chslib": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": L.__version__,
            "numpy": np.__version__,
        },
        "device": torch.cuda.get_device_name()
        if cuda
        else f"CPU, {processor}, {torch.get_num_threads()} threads",
        "precision": "bf16-mixed" if cuda else "32-true",
    }


def digest(record: dict[str, Any]) -> str:
    """sha256 over a record without its own `digest`: a value changed by hand no longer fits it.

    It guards against slips, not against forgery: who can write a record can write its digest.
    """
    content = {k: v for k, v in record.items() if k != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_written(path: str | Path, *, command: str) -> dict[str, Any]:
    """A record that a command wrote, refused where it was changed afterwards.

    Args:
        command: what writes it, for the error.

    Raises:
        FileNotFoundError: no such record.
        ValueError: not JSON, or a digest that does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {command} writes it.")
    try:
        record = json.loads(path.read_text())
        fits = record.get("digest") == digest(record)
    except (ValueError, AttributeError) as error:  # half a file; a list
        raise ValueError(f"{path} is not a record ({error}); write it anew: {command}.") from error
    if not fits:
        raise ValueError(f"{path} was changed after it was written; write it anew: {command}.")
    return record
