"""The entry point: interrupts, and too little memory."""

import sys

INTERRUPTED = 128 + 2  # the exit code after Ctrl-C, as shells have it
# Messages of the system, PyTorch and Python about too little memory, besides MemoryError.
_NO_MEMORY = (
    *("failed to map segment", "cannot allocate memory", "can't allocate memory"),
    *("not enough memory", "could not create a primitive", "can't start new thread"),
    *("error return without exception set", "returned null without setting an exception"),
)


def main() -> None:
    """Run the command line."""
    try:
        from dayfold.cli import main as run  # takes a fifth of a second

        run()
    except (KeyboardInterrupt, SystemExit) as ended:
        # Inside a command typer turns Ctrl-C into SystemExit.
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        print("dayfold: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        text = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError) and not _is_no_memory(text):
            raise
        print(f"dayfold: There is too little memory{f' ({text})' * bool(text)}.", file=sys.stderr)
        print("→ see ulimit -v, and the limit of the container or batch job", file=sys.stderr)
        sys.exit(1)


def _is_no_memory(text: str) -> bool:
    return any(words in text.lower() for words in _NO_MEMORY)


if __name__ == "__main__":
    main()
