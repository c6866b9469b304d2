"""``python -m mmpt.hub`` is ``mmpt hub``."""

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(command="hub"))
