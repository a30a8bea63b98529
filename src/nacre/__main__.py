"""python -m nacre: the same as the command nacre, for where scripts of an environment are not on the path."""

import sys

from nacre.cli import main

if __name__ == "__main__":
    sys.exit(main())
