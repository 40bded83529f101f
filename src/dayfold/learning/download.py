"""One file over HTTP, checked by its sha256: with progress, and again where a connection breaks."""

import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from dayfold import __version__
from dayfold.errors import ModelError
from dayfold.project.console import Ticker
from dayfold.project.files import sha256_file

TIMEOUT_SECONDS = 15  # without a byte
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)  # before each further try
MB = 1_000_000
_PIECE = 1 << 16  # bytes read at a time
_LATER = {408, 425, 429}  # answers of a server that may do better in a moment; and all from 500 on


class _BrokenError(Exception):
    """The transfer ended too early, or the server asks for patience: another try may succeed."""


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str,
    what: str,
    mend: str,
    say: Callable[[str], None],
    waits_seconds: tuple[float, ...] = WAITS_SECONDS,
) -> None:
    """Download `what` from `url` to `path`; it is there only if its sha256 is the expected one.

    A transfer that breaks goes on where it stopped if the server can do that, and from the start
    otherwise, once for each of `waits_seconds`. Raises ModelError, with `mend` as the way out.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    tries = len(waits_seconds) + 1
    try:
        for number, wait in enumerate((*waits_seconds, None), start=1):
            try:
                pieced = _transfer(url, part, what, say)
                if _is_whole(part, sha256, url, pieced):
                    break
                why = "the pieces do not fit together"
                part.unlink()
            except _BrokenError as error:
                why = str(error)
            except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
                why = _reason(error)
                if not part.exists() and _is_no_network(error):
                    raise _failure(url, what, why, mend) from None
            if wait is None:
                raise _failure(url, what, f"{why}; {tries} tries", mend)
            say(f"the download broke off ({why}); try {number + 1} of {tries} in {wait:g} s")
            time.sleep(wait)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _failure(url: str, what: str, why: str, mend: str) -> ModelError:
    return ModelError(f"{what} cannot be downloaded from {url} ({why}).", mend=mend)


def _is_whole(part: Path, sha256: str, url: str, pieced: bool) -> bool:
    found = sha256_file(part)
    if found != sha256 and not pieced:
        raise ModelError(
            f"{url} is not the file that it should be (sha256 {found[:12]}…, expected "
            f"{sha256[:12]}…); it was not opened.",
            mend="something between here and the server may have answered in its place (a proxy, a "
            "log-in page): try another network",
        )
    return found == sha256


def _transfer(url: str, part: Path, what: str, say: Callable[[str], None]) -> bool:
    """Receive the rest of the file, or all of it; return whether it was pieced together."""
    here = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"dayfold/{__version__}"} | (
        {"Range": f"bytes={here}-"} if here else {}
    )
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the caller's own constant
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file is now
        elif error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _LATER:
            raise ModelError(
                f"{what} cannot be downloaded: {url} answers {error.code} {error.reason}."
            ) from None
        raise _BrokenError(f"the server answers {error.code} {error.reason}") from None
    with answer:
        begins = f"bytes {here}-"
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT and str(
            answer.headers["Content-Range"]
        ).startswith(begins)
        here = here if goes_on else 0
        length = answer.headers["Content-Length"]
        total = here + int(length) if length else 0
        size = f"{total / MB:.1f} MB" if total else "of unknown size"
        begun = f", going on after {here / MB:.1f} MB" * bool(here)
        say(f"downloading {what}, {size}, from {url}{begun}")
        with (
            part.open("ab" if here else "wb") as file,
            Ticker("download", max(1, round(total / MB)), "MB") as ticker,
        ):
            received = here
            while piece := answer.read(_PIECE):
                file.write(piece)
                received += len(piece)
                ticker.so_far(received // MB, max(1, round(total / MB), received // MB))
    if received < total:
        raise _BrokenError(f"after {received / MB:.1f} of {total / MB:.1f} MB")
    return bool(here)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(cause) or type(cause).__name__


def _is_no_network(error: Exception) -> bool:
    """Whether nobody was reached at all: then another try in a second helps nobody."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(cause, socket.gaierror | ConnectionRefusedError)
