"""`chs-net`: every command of the replication, as a table of contents."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from replication.cli import data, measure, records, segment, train, weights

# In the order in which they are needed; each adds its own subcommand, and imports what it needs when it is run.
GROUPS = (segment, data, train, weights, measure, records)


def build_parser() -> argparse.ArgumentParser:
    """The command line; kept apart so that a page can print its help."""
    parser = argparse.ArgumentParser(
        prog="chs-net", description="CHS-Net, replicated: data, training, weights, measurements."
    )
    parser.add_argument("--version", action="store_true", help="show the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for group in GROUPS:
        group.add_to(commands)
    _tell_contents(parser)
    return parser


def _tell_contents(parser: argparse.ArgumentParser) -> None:
    """A command that only leads to others shows them, where none is given."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser.set_defaults(run_command=lambda _: parser.print_help())
            for below in action.choices.values():
                _tell_contents(below)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 with a line on stderr if not, 130 if interrupted.

    Whoever reads the output may stop before its end, as `head` does: that is no error. A name that the output's
    encoding lacks is written with escapes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(build_parser().parse_args(arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        return 0


def _run(options: argparse.Namespace) -> int:
    if options.version:
        from chslib import __version__

        print(f"chs-net {__version__}")
        return 0
    try:
        return options.run_command(options) or 0
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("chslib", "replication"):
            raise
        extra = "study,export" if error.name == "onnx" else "study"
        print(
            f"error: {error}; this command needs the packages of `pip install chslib[{extra}]`",
            file=sys.stderr,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 1
