"""``python -m mmpt.convert`` is ``mmpt convert``."""

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(command="convert"))
