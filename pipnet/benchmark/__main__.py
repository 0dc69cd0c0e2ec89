"""``python -m pipnet.benchmark``."""

import sys

if __name__ == "__main__":
    try:
        from pipnet.benchmark import main

        sys.exit(main())
    except KeyboardInterrupt:  # in the moments before the benchmark's own care begins
        sys.exit("pipnet.benchmark: interrupted; nothing is written")
