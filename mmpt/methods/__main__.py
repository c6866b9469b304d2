"""``python -m mmpt.methods`` is ``mmpt methods``."""

import sys

from mmpt.cli.app import main

if __name__ == "__main__":
    sys.exit(main(command="methods"))
