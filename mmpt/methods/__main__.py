"""``python -m mmpt.methods`` prints docs/methods.md; with arguments it is ``mmpt methods``."""

from __future__ import annotations

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["methods", *(sys.argv[1:] or ["page"])]))
