"""``python -m mmpt.methods``: see :mod:`mmpt.cli.methods_page`."""

from __future__ import annotations

from mmpt.cli.methods_page import main

if __name__ == "__main__":
    main()
