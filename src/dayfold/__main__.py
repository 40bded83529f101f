"""Where `dayfold` starts, and how Ctrl-C ends it."""

import sys

INTERRUPTED = 128 + 2  # the exit code after Ctrl-C, as shells have it


def main() -> None:
    """Run the command line."""
    try:
        from dayfold.cli import main as run  # it takes a fifth of a second

        run()
    except (KeyboardInterrupt, SystemExit) as ended:
        # Within a command typer has made an exit of it.
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        print("dayfold: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
