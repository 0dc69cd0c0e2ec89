"""Landmarks on photos, videos and in front of a camera: ``python -m pipnet.demo``.

``docs/demo.md`` says what the options do, and what the JSON and CSV files hold. Without a source it looks at the
portrait that ships, of the astronaut Eileen Collins (NASA, public domain).

Ctrl-C, like ``q`` in the window, ends a video or a camera in good order: what was done is kept. Of photos, the one
under way is finished. While the demo starts, and a second time, Ctrl-C ends it at once.

Exit status: 0, also when there is no face and when the user ended it; 1 when a photo, a video or a camera could not be
used, or a result not be written, or it was interrupted at once; 2 for wrong arguments.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo on the arguments of a command line, None for the process's own; returns the exit status."""
    from pipnet import console

    def work() -> int:
        from pipnet.demo.command import run  # inside: a Ctrl-C while this is imported ends it in one line

        return run(arguments)

    return console.run("demo", work, alone=arguments is None)
