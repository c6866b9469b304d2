"""The commands of ``mmpt`` as functions of their arguments, as ``python -m mmpt.NAME`` calls them."""

from __future__ import annotations

from functools import partial

from mmpt.cli.app import main

cache = partial(main, command="cache")
convert = partial(main, command="convert")
dashboard = partial(main, command="dashboard")
hub = partial(main, command="hub")
predict = partial(main, command="predict")
report = partial(main, command="report")
