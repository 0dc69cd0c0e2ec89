"""``python -m pipnet.demo``."""

import sys

from pipnet.demo import main

if __name__ == "__main__":
    sys.exit(main())
