"""What the command lines have in common: how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from mmpt.errors import MmptError
from mmpt.utils.secrets import error_line


def exit_code(work: Callable[[], int]) -> int:
    """Do the work of a program.

    Args:
        work: Returns the exit code where all goes well.

    Returns:
        The exit code. An error of ours is told in one line on standard error and has its own; where nobody reads the
        output any more, as behind ``| head``, it is 0.
    """
    try:
        return work()
    except MmptError as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or closing stdout fails once more
        return 0
