"""``python -m pipnet.demo``."""

import sys

if __name__ == "__main__":
    try:
        from pipnet.demo import main

        sys.exit(main())
    except KeyboardInterrupt:  # in the moments before the demo's own care begins
        sys.exit("pipnet.demo: interrupted")
