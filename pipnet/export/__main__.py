"""``python -m pipnet.export``."""

import sys

if __name__ == "__main__":
    try:
        from pipnet.export import main

        sys.exit(main())
    except KeyboardInterrupt:  # in the moments before the command's own care begins
        sys.exit("pipnet.export: interrupted; nothing was written")
