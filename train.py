"""Train one adapter: ``python train.py task=rte method=multimask``. See ``python train.py --help``."""

from __future__ import annotations

import sys

from mmpt.cli import main

if __name__ == "__main__":
    sys.exit(main())
