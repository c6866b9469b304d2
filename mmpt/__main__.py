"""``python -m mmpt``: the command ``mmpt``; with settings alone it trains, as ``train.py`` does."""

import sys

from mmpt.cli import app, train

if __name__ == "__main__":
    trains = any("=" in word for word in sys.argv[1:2]) or sys.argv[1:2] in (["-m"], ["--cfg"], ["--multirun"])
    sys.exit(train.main() if trains else app.main())
