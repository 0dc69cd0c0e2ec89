"""Print the block of README.md that is marked ``<!-- command: NAME -->``, so that CI runs what users are told."""

import re
import sys
from pathlib import Path

readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
found = re.findall(rf"<!-- command: {re.escape(sys.argv[1])} -->\s*```(?:bash|sh|python)\n(.*?)```", readme, re.DOTALL)
if len(found) != 1:
    sys.exit(f"README.md marks {len(found)} blocks as {sys.argv[1]!r}, expected one")
print(found[0].strip())
