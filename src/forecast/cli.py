"""The command line: each command is one library call and a table or JSON of what it returns.

Only the rooms of commands print and exit.  They import others inside the commands so that help is quick.
"""

from __future__ import annotations

import sys

from forecast import (
    absorption_commands,
    foresight_commands,
    input_commands,
    job_commands,
    page_commands,
    record_commands,
    run_commands,
)
from forecast.console import app
from forecast.schema import InputError

__all__ = [
    "absorption_commands",
    "app",
    "foresight_commands",
    "input_commands",
    "job_commands",
    "main",
    "page_commands",
    "record_commands",
    "run_commands",
]


def main() -> None:
    """Run the command line; bad input ends in one line and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
