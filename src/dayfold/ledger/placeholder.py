"""The line of text in the place of an erased image: which image it was, and nothing of it.

DVC checks out nothing of a day's folder whose object is missing, and trusts one that is read-only:
so a line of text takes the object's place. It is a function of the image's id alone, so that it
can be told from any other text, and a placeholder of another image from that of this one.
"""

import re

_LINE = re.compile(rb"dayfold: image ([0-9a-f]{64}) was erased; data/corrections/ says when\n")


def placeholder(image: str) -> bytes:
    """Return the text that lies in the place of an erased image, by the image's sha256."""
    return f"dayfold: image {image} was erased; data/corrections/ says when\n".encode()


def erased_image(data: bytes) -> str:
    """Return the sha256 of the image that these bytes are the placeholder of; empty if of none."""
    found = _LINE.fullmatch(data)
    return found[1].decode() if found else ""
