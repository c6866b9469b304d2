"""``python -m mmpt.cache`` is ``mmpt cache``."""

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(command="cache"))
