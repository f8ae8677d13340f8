"""`chs-net`: every command of the replication, as a table of contents."""

import argparse
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
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for group in GROUPS:
        group.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 with a line on stderr if not, 130 if interrupted."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run_command(options) or 0
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
