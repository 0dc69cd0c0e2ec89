"""``python -m pipnet.benchmark``."""

import sys

from pipnet.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
