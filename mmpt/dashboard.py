"""``python -m mmpt.dashboard`` is ``mmpt dashboard``."""

from __future__ import annotations

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(command="dashboard"))
