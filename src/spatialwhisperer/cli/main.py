"""From what was typed to an exit code: 0 all is well, 1 something failed, 2 it was typed wrongly."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from spatialwhisperer.cli.errors import UsageError, one_line
from spatialwhisperer.cli.parser import make_parser

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments
        What was typed after the name of the program; ``None`` takes the arguments of this process.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a name that the terminal cannot show is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    options = make_parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("spatialwhisperer: interrupted. What was finished is kept.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read the output has closed it, as head does
        sys.stderr.close()
        return FAILED
    except Exception as error:
        if options.debug:
            raise
        print(f"spatialwhisperer: error: {one_line(error)}", file=sys.stderr)
        return MISUSED if isinstance(error, UsageError) else FAILED


def _run(options: Namespace) -> int:
    """Carry out the command, whose module is imported only now: help and version need none of them."""
    if options.command == "annotate":
        from spatialwhisperer.cli import annotate

        return annotate.run(options)
    if options.command == "encoders":
        from spatialwhisperer.cli import encoder_table

        return encoder_table.run(options)
    from spatialwhisperer.cli import doctor

    return doctor.run(options)
