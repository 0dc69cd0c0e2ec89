"""The tables of the records, from the JSON files that the measurements wrote.

    python experiments/tables.py [RECORD ...]            # rewrites the rows of these records' tables; of all
    python experiments/tables.py --check [RECORD ...]    # changes nothing, and fails where a row differs

Above a table of ``experiments/RECORD/README.md`` stands ``<!-- table of SOURCE: CELLS -->``. SOURCE is a file and keys
in it, ``metrics.json/cases``: a mapping of titles to the values of a row, or a list of such values. In square brackets
it is the values of the only row, and ``function(FILE/KEY, …)`` is what that function of ``table_rows.py`` makes of it.
CELLS is a row as for ``str.format``: ``{row}`` is its title, its values go by their names, and one that has none is
``{value}``.
"""

from __future__ import annotations

import argparse
import json
import re
import string
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TABLE = re.compile(r"(<!-- table of (.+?): (.+?) -->\n\n\|.*\n\|[-| ]+\|\n)((?:\|.*\n)*)")


class Cells(string.Formatter):
    """Formats an interval as ``value (low … high)``, one without width as its value, and None as a dash.

    An interval is a mapping of ``value`` (or ``median``), ``low`` and ``high``, or a list of the three.

    Example:
        >>> Cells().format("{0:.1f} | {1:+.2f} | {2:.1f}", {"value": 2, "low": 1, "high": 3}, [0.1, -0.2, 0.4], None)
        '2.0 (1.0 … 3.0) | +0.10 (-0.20 … +0.40) | –'
    """

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None:
            return "–"
        if isinstance(value, Mapping):
            middle = value["value"] if "value" in value else value["median"]
            value = [middle, value["low"], value["high"]]
        if isinstance(value, list):
            middle, low, high = (self.format_field(part, format_spec) for part in value)
            return middle if value[1] == value[2] else f"{middle} ({low} … {high})"
        return super().format_field(value, format_spec)


def rows_of(source: str, folder: Path) -> Mapping[Any, Any]:
    """Titles and values of the rows that a mark asks for."""
    from experiments import table_rows

    def part(of_file: str) -> Any:
        name, _, keys = of_file.partition(".json")
        content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for key in keys.split("/")[1:]:
            content = content[key]
        return content

    if call := re.fullmatch(r"(\w+)\((.+)\)", source):
        return getattr(table_rows, call[1])(*map(part, call[2].split(", ")))
    found = [part(source[1:-1])] if source.startswith("[") else part(source)
    return found if isinstance(found, Mapping) else dict(enumerate(found))


def filled(page: str, folder: Path) -> str:
    """A page with the rows of its tables as the files in its folder have them."""

    def table(found: re.Match[str]) -> str:
        head, source, cells, _ = found.groups()
        lines = []
        for row, values in rows_of(source, folder).items():
            named = values if isinstance(values, Mapping) else {"value": values}
            lines.append(f"| {Cells().format(cells, row=row, **named)} |\n")
        return head + "".join(lines)

    return TABLE.sub(table, page)


def main(arguments: list[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="*", metavar="RECORD", help="a folder of experiments/; default: all")
    parser.add_argument("--check", action="store_true", help="change nothing, fail where a row differs")
    options = parser.parse_args(arguments)
    records = options.records or sorted(path.parent.name for path in HERE.glob("*/README.md"))
    differing = []
    for record in records:
        page = HERE / record / "README.md"
        try:
            text = page.read_text(encoding="utf-8")
            new = filled(text, page.parent)
        except (OSError, LookupError, AttributeError, ValueError, TypeError) as error:
            sys.exit(f"error: the tables of {page} can't be made: {error!r}")
        if new != text:
            differing.append(record)
            if not options.check:
                page.write_text(new, encoding="utf-8")
    if options.check and differing:
        sys.exit(f"error: tables differ from their files, run python experiments/tables.py: {', '.join(differing)}")


if __name__ == "__main__":
    main(sys.argv[1:])
