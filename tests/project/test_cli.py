"""`chs-net` as a whole: a table of contents, each option described once, and an end that a pipe may cut off."""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chslib import __version__
from replication.cli import build_parser, main


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


PARSERS = {parser.prog: parser for parser in parsers(build_parser())}


@pytest.mark.parametrize("command", PARSERS)
def test_each_option_is_described_once(command: str) -> None:
    for action in PARSERS[command]._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert all(choice.help for choice in action._choices_actions)
            continue
        text = (action.help or "") % {"default": action.default} if action.help else ""
        assert text, f"{command} {action.dest} is not described"
        assert text.count("default") <= 1, f"{command}: {text}"
        if action.default not in (None, False, [], "", argparse.SUPPRESS) and action.option_strings:
            assert "default" in text, f"{command} {action.dest} does not say its default"


@pytest.mark.parametrize(
    "command", [c for c in PARSERS if any(o != c and o.startswith(c + " ") for o in PARSERS)]
)
def test_what_only_leads_further_shows_where_and_ends_well(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()[1:]) == 0
    shown = capsys.readouterr().out
    below = {other.split()[len(command.split())] for other in PARSERS if other.startswith(command + " ")}
    assert below and all(re.search(rf"^ +{name}\b", shown, flags=re.M) for name in below)


def test_measure_names_all_that_it_measures() -> None:
    (line,) = re.findall(r"^ +measure +(.*(?:\n {8,}.*)*)", build_parser().format_help(), flags=re.M)
    for what in ("leak", "contrast", "cleaning", "thresholds", "lesions", "false alarms"):
        assert what in " ".join(line.split())


def test_the_version_and_a_reader_that_stops_early() -> None:
    chs_net = [sys.executable, "-m", "replication"]
    assert (
        subprocess.run([*chs_net, "--version"], capture_output=True, text=True).stdout
        == f"chs-net {__version__}\n"
    )
    failed = subprocess.run([*chs_net, "list", "--profile", "big"], capture_output=True, text=True)
    assert (
        failed.returncode == 1 and failed.stdout == "" and failed.stderr.startswith("error: Unknown profile")
    )
    for arguments in (["list", "--names"], ["data", "fuse", "--help"], []):
        command = subprocess.Popen([*chs_net, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        command.stdout.close()  # `head` that has seen enough
        assert command.stderr.read() == b"" and command.wait() == 0
