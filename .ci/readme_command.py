"""Print the shell command that README.md marks with ``<!-- command: NAME -->``, so that CI runs what users are told."""

import re
import sys
from pathlib import Path

readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
found = re.findall(rf"<!-- command: {re.escape(sys.argv[1])} -->\s*```(?:bash|sh)\n(.*?)```", readme, re.DOTALL)
if len(found) != 1:
    sys.exit(f"README.md marks {len(found)} commands as {sys.argv[1]!r}, expected one")
print(found[0].strip())
