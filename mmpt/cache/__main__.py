"""``python -m mmpt.cache`` is ``mmpt cache``."""

from __future__ import annotations

import sys

from mmpt.cli.cache import main

if __name__ == "__main__":
    sys.exit(main())
