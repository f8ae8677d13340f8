"""Build the book of the committed notebooks, serve it on this machine, and build it again when a page or a record changes.

    python book/serve.py --out _build/served --port 8000    # make docs-serve; Ctrl-C ends it

A page that is open in a browser reloads behind each build. What did not change is not built again, so that a page takes
seconds; `make book` builds all of it, and is what counts.
"""

import argparse
import filecmp
import functools
import shutil
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from build import ROOT, build, stage

WATCHED = ("book/**/*", "notebooks/*.ipynb", "results/**/*.json", "chslib/weights/**/*.json", "_*.yml")
BUILT = "/_built"  # an address that says which build this is
RELOAD = f"""
<script>
setInterval(async () => {{
  const now = await fetch("{BUILT}").then((answer) => answer.text()).catch(() => "");
  if (now && window.built && now !== window.built) location.reload();
  window.built = now || window.built;
}}, 1000);
</script>
"""


def state(source: Path) -> dict[Path, float]:
    """When each file that the book is made of was written."""
    files = (path for pattern in WATCHED for path in source.glob(pattern))
    return {
        path: path.stat().st_mtime for path in files if path.is_file() and "__pycache__" not in path.parts
    }


def take_over(fresh: Path, staged: Path) -> list[Path]:
    """Move what changed from one folder into another, so that Sphinx reads nothing else; returns those files."""
    names = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for path in [p for p in staged.rglob("*") if p.is_file() and p.relative_to(staged) not in names]:
        path.unlink()
    changed = []
    for name in sorted(names):
        if not (staged / name).is_file() or not filecmp.cmp(fresh / name, staged / name, shallow=False):
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(fresh / name, staged / name)
            changed.append(name)
    shutil.rmtree(fresh)
    return changed


def rebuild(source: Path, out: Path) -> bool:
    """Bring the book in `out` up to date; False, with a line on stderr, where it cannot be built."""
    begun = time.monotonic()
    try:
        stage(source, out / "fresh")
        changed = take_over(out / "fresh", out / "src")
        build(out / "src", out, anew=False)
    except (FileNotFoundError, ValueError, subprocess.CalledProcessError) as error:
        print(f"error: {error}; mend it, and the book is built again", file=sys.stderr)
        return False
    print(f"{len(changed)} files changed, built in {time.monotonic() - begun:.0f} s", flush=True)
    return True


class Pages(SimpleHTTPRequestHandler):
    """The book's files, each page with the script that reloads it; `builds` counts the builds."""

    builds = 0

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if self.path == BUILT:
            self.answer(str(Pages.builds).encode(), "text/plain")
        elif path.suffix == ".html" and path.is_file():
            self.answer(path.read_bytes() + RELOAD.encode(), "text/html; charset=utf-8")
        else:
            super().do_GET()

    def answer(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: a line a request would hide what the build says."""


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    seen: dict[Path, float] = {}
    pages = functools.partial(Pages, directory=str(out / "_build/html"))
    with ThreadingHTTPServer(("127.0.0.1", options.port), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            while True:
                if (now := state(ROOT)) != seen:
                    seen = now
                    Pages.builds += rebuild(ROOT, out)
                time.sleep(1)
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
