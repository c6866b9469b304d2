"""``python -m mmpt.hub``: see :mod:`mmpt.cli.hub`."""

from __future__ import annotations

import sys

from mmpt.cli.hub import main

if __name__ == "__main__":
    sys.exit(main())
