"""Where `dayfold` starts, and how Ctrl-C ends it."""

import os
import sys

INTERRUPTED = 128 + 2  # the exit code after Ctrl-C, as shells have it


def main() -> None:
    """Run the command line."""
    if sys.getfilesystemencoding() != "utf-8":
        # An old locale: names of files would be read as other letters than on other machines.
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
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
