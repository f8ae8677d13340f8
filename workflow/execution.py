"""One notebook run by papermill in a process that ends with its parent, and a run trained by one process at a time."""

import fcntl
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
# The notebooks' kernel is this environment's Python, whatever kernels the user has installed.
KERNEL = {
    "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PLATFORM_DIRS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}  # fmt: skip


class _Log(logging.Handler):
    """Everything a notebook prints goes to its log; what tells of progress also to the terminal."""

    def __init__(self, file: TextIO, terminal: int, name: str) -> None:
        super().__init__()
        self.file, self.terminal, self.run = file, terminal, name

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().rstrip("\n")
        self.file.write(text + "\n")
        for line in text.splitlines():
            if line.startswith("epoch "):
                os.write(self.terminal, f"{self.run}: {line}\n".encode())


def say(text: str) -> None:
    """One whole line to the terminal, also where several jobs write to it."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def execute(notebook: Path, out: Path, log: Path, name: str, given: dict[str, str]) -> None:
    """Run a notebook with papermill, in this process; what its page shows of the values given is folded, and relative."""
    import papermill  # a second

    os.environ.update(KERNEL)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for path in (out, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    terminal = os.dup(2)
    with open(log, "w", buffering=1, encoding="utf-8") as file:
        logger.handlers[:] = [_Log(file, terminal, name)]
        os.dup2(file.fileno(), 2)  # what the kernel itself has to say goes there, too
        try:
            papermill.execute_notebook(
                notebook, out, parameters=_relative(given), cwd=ROOT / "notebooks", kernel_name="python3",
                log_output=True, progress_bar=False,
            )  # fmt: skip
            _fold_injected(out)
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _relative(given: dict[str, str]) -> dict[str, str]:
    """The values with paths as seen from the notebooks' folder, where their kernel runs."""
    return {k: os.path.relpath(v, ROOT / "notebooks") if os.path.isabs(v) else v for k, v in given.items()}


def _fold_injected(out: Path) -> None:
    """Fold the cell that papermill puts in as the notebook's own parameters are folded."""
    notebook = json.loads(out.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", []):
            words = "Parameters of this run"
            cell["metadata"]["tags"].append("hide-input")
            cell["metadata"]["mystnb"] = {"code_prompt_hide": words, "code_prompt_show": words}
    out.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def end_with_parent() -> None:
    """End this process soon after the one that started it, which a kill -9 takes without a word.

    Without this, a second Snakemake would find the first one's trainings still at work.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # the kernel sees it, and ends too

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock while one run is trained; wait for it where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"{path.stem}: another process trains it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
