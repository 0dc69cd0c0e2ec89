"""MkDocs hook: what these pages link to elsewhere in the repository joins the site, and links work in both places.

In the repository a page says ``../experiments/roll/README.md``, seen from ``docs/``; on the site ``docs/`` is the top,
and the records lie beside the pages.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs/"
OTHERS = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "pipnet/weights/*.md",
    "experiments/*/README.md",
    "experiments/*/*.png",
    "experiments/pictures/*.jpg",
    "experiments/pictures/*.gif",
    "examples/*.py",
    "examples/javascript/*.mjs",
)
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the files of :data:`OTHERS`."""
    for pattern in OTHERS:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Links between ``docs/`` and the rest of the repository, seen from the site."""
    inside = Path(page.file.src_dir) == Path(config.docs_dir)
    here = posixpath.dirname((DOCS if inside else "") + page.file.src_uri)

    def on_site(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, found[1])).removeprefix(DOCS)
        if target == "README.md":
            target = "index.md"
        start = posixpath.dirname(page.file.src_uri) or "."
        return posixpath.relpath(target, start) if files.get_file_from_path(target) else found[1]

    return LINK.sub(on_site, markdown)
