"""The command line: ``python -m spatialwhisperer`` does what the command ``spatialwhisperer`` does."""

from __future__ import annotations

from spatialwhisperer.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
