"""``python -m mmpt.dashboard``: see :mod:`mmpt.runs.dashboard`."""

from __future__ import annotations

import sys

from mmpt.runs.dashboard import main

if __name__ == "__main__":
    sys.exit(main())
