"""`python -m replication`: the command line where `chs-net` is not installed."""

import sys

from replication.cli import main

if __name__ == "__main__":
    sys.exit(main())
