"""Files that appear whole or not at all."""

import json
import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it appears whole or not at all; text as UTF-8."""
    temporary = path.parent / f".{os.getpid()}.{path.name}.part"
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    """Write atomically: the file is either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
