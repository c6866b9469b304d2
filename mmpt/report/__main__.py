"""``python -m mmpt.report`` is ``mmpt report``."""

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(command="report"))
