"""Files that appear whole or not at all."""

import json
import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all."""
    temporary = path.parent / f".{os.getpid()}.{path.name}.part"
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    """Write atomically: the file is either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
