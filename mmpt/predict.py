"""``python -m mmpt.predict`` is ``mmpt predict``."""

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(command="predict"))
