"""``python -m mmpt``: see :mod:`mmpt.cli.train`."""

from __future__ import annotations

import sys

from mmpt.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
