"""`python -m app.sandbox`: the sandbox as a process of its own."""

import argparse
import sys
from typing import cast

from app.sandbox.classifiers import SandboxUnavailableError, Size
from app.sandbox.server import DEFAULT_PORT, serve


def main() -> int:
    """Read the options and serve; 2 where the sandbox cannot run here."""
    parser = argparse.ArgumentParser(prog="python -m app.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes a free one; default %(default)s"
    )
    parser.add_argument("--size", type=int, choices=(128, 224), default=224, help="form of plain model ids")
    parser.add_argument("--keys", default="", help="accepted keys, comma-separated; default: any sandbox-...")
    parser.add_argument(
        "--rate-limit", type=float, help="requests per second; 0: none; default: the providers' own"
    )
    parser.add_argument("--workers", type=int, default=0, help="scoring threads; 0: one per processor")
    given = parser.parse_args()
    keys = tuple(key.strip() for key in given.keys.split(",") if key.strip())
    try:
        serve(given.host, given.port, cast(Size, given.size), keys, given.rate_limit, given.workers)
    except (SandboxUnavailableError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
