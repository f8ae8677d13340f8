"""Files that appear whole or not at all, and a folder that one process writes."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it appears whole or not at all; text as UTF-8."""
    temporary = path.parent / f".{os.getpid()}.{path.name}.part"
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write atomically: the file is either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is no file.

    Raises:
        ValueError: it holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); mend it or delete it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object; mend it or delete it")
    return content


@contextmanager
def alone(memory: Path, *, what: str, patience: float = 0) -> Iterator[None]:
    """Refuse a second process, one that does `what`, into the folder above, after so many seconds of waiting for the first.

    The system drops the lock of one that dies.
    """
    writer = memory / "writer"
    try:
        with FileLock(memory / "lock", timeout=patience):
            write_whole(writer, f"process {os.getpid()} on {socket.gethostname()}")
            yield
    except Timeout:
        told = writer.read_text() if writer.exists() else "just begun"
        raise ValueError(
            f"{memory.parent}: another {what} writes here ({told}); wait for its end, or choose another folder"
        ) from None
