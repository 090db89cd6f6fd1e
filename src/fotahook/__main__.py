"""`python -m fotahook`: the command line."""

import sys

from fotahook.cli import main

if __name__ == "__main__":
    sys.exit(main())
