"""``python -m mmpt.convert``: see :mod:`mmpt.interop.convert`."""

from __future__ import annotations

import sys

from mmpt.interop.convert import main

if __name__ == "__main__":
    sys.exit(main())
