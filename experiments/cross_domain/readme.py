"""The tables of ``README.md`` between their marks, so that a script that measures fills them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipnet.files import replacing


def write_tables(readme: Path, tables: Mapping[str, str]) -> None:
    """Put tables between ``<!-- NAME -->`` and ``<!-- end of NAME -->``; those without marks there are left out.

    Args:
        readme: The page; nothing happens where there is none.
        tables: Name to its lines.

    Raises:
        OSError: It can't be written.
    """
    if not readme.is_file():
        return
    text = readme.read_text(encoding="utf-8")
    for name, table in tables.items():
        mark, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, _, rest = text.partition(mark)
        _, found, tail = rest.partition(end)
        if found:
            text = f"{head}{mark}\n{table}\n\n{end}{tail}"
    with replacing(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
