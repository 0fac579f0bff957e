"""``python -m bitswitch`` is ``bitswitch``."""

import sys

from bitswitch.command_line import main

if __name__ == "__main__":
    sys.exit(main())
