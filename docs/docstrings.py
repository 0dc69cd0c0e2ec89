"""Griffe extension: docstrings as mkdocstrings reads them. ``Example:`` holds doctests, Sphinx roles become links."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([\w.]+)`")


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for every object."""
        if obj.docstring is None:
            return
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        obj.docstring.value = ROLE.sub(_link, text)


def _link(role: re.Match[str]) -> str:
    """A link where the target is on these pages, its name as code where it is not."""
    name = role[2].rpartition(".")[2] if role[1] else role[2].removeprefix("pipnet.")
    return f'<autoref identifier="{role[2]}" optional><code>{name}</code></autoref>'
