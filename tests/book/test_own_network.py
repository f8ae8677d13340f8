"""The page that adds a network to Table 3 is followed to the letter, in a copy of the code."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from test_reproduce_page import commands

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book/own_network.md").read_text(encoding="utf-8")
# In the copy: what the page says becomes of the runs. Records of the smoke profile stand in for real ones.
LOOK = """
import sys
from types import SimpleNamespace
sys.path.insert(0, "book")
import explorers
from replication.evidence import tables
from replication.evidence.estimates import Ours
from replication.training.grid import campaign, table_networks

results = "results/local"
ours = Ours(results, ("smoke",))
print(tables.table(3, ours).to_string())
print(*ours.both_ways("infection"), sep="\\n")
import replication.training.profiles as profiles
profiles.PROFILES["cpu"] = profiles.PROFILES.pop("smoke")
assert {"own-mine", "own-mine-patient-fold0"} <= set(campaign("rows"))
assert "own-mine" not in table_networks("infection"), "it would count in the paper's verdicts"
numbers = SimpleNamespace(of_profile=lambda profile: SimpleNamespace(accepted={"cpu": ours.accepted["smoke"]}))
print(explorers.results(numbers))
"""


def test_one_file_and_one_line_make_a_row(tiny_store: Path, tmp_path: Path) -> None:
    for part in ("chslib", "replication", "book"):
        skip = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=skip)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    (line,) = re.findall(r"```text\n(OWN.*)\n```", PAGE)
    assert len([row for row in code.splitlines() if row.strip()]) <= 14
    (tmp_path / "replication/peers/mine.py").write_text(code)
    peers = tmp_path / "replication/peers/__init__.py"
    assert peers.read_text().count("OWN: dict[str, Peer] = {}\n") == 1
    peers.write_text(peers.read_text().replace("OWN: dict[str, Peer] = {}\n", line + "\n"))

    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    for command in (c for c in commands(PAGE) if "chs-net train" in c and "\n" not in c):
        smoke = command.replace("cpu", "smoke").replace("data/official/slices", str(tiny_store))
        run("-m", "replication", *smoke.split()[1:])
    told = run("-c", LOOK)
    for cells in (
        r"Mine, not in the paper +paper +not in the paper\n",
        r"DRY RUN, no result, random slices +\d,\d{3} [^\n]*own-mine\n",
        r"DRY RUN, no result, new patients +[\d.]+ [^\n]*own-mine-patient-fold0\n",
        r"\nMine, not in the paper, direct\n",  # chapter 16's networks, tested both ways
        r"cpu/own-mine-patient-fold0: DSC [\d.]+, new patients",
        r">Mine, not in the paper<",
    ):
        assert re.search(cells, told), cells
