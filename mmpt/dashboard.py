"""``python -m mmpt.dashboard`` is ``mmpt dashboard``."""

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(command="dashboard"))
