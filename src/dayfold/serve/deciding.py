"""The page of an audit: the doubted images with their pictures, to decide on, in one file."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

import jinja2
from markupsafe import Markup

from dayfold.figures.report.pictures import thumbnail
from dayfold.ledger.decode import no_warnings
from dayfold.ledger.intake.walking import KEEP, WITHDRAW
from dayfold.ledger.tables import Doubt
from dayfold.project.files import write_bytes
from dayfold.project.layout import Project
from dayfold.serve.auditing import Audit

PICTURED = 500  # images at most: the page has to open


def write(project: Project, found: Audit) -> None:
    """Write data/audit/<day>.html: nothing in it asks for anything outside it.

    What is decided on it is saved, by the browser, as the table that `dayfold relabel` takes.
    """
    folder = files("dayfold.serve") / "page"
    script = (folder / "audit.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "audit.html").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    with no_warnings():
        pictured = [
            (doubt, thumbnail(project, {doubt.path: doubt.image}, doubt.path))
            for doubt in found.doubts[:PICTURED]
        ]
    text = template.render(
        audit=found,
        pictured=pictured,
        choices=lambda doubt: choices(doubt, found.classes),
        table=project.name(project.audit(found.day)),
        file=project.audit(found.day).name,
        script=Markup(script),  # noqa: S704 (our own file)
        pin=f"sha256-{digest}",  # no script runs but this one
    )
    write_bytes(project.audit_page(found.day), text.encode())


def choices(doubt: Doubt, classes: Sequence[str]) -> list[tuple[str, str]]:
    """What may be decided on an image, as (decision, how it is said), the likeliest first."""
    rest = [name for name in classes if name not in (doubt.label, doubt.suggested)]
    found = [
        ("", "undecided"),
        (doubt.suggested, f"it is {doubt.suggested}"),
        (KEEP, f"keep {doubt.label}"),
        *((name, f"it is {name}") for name in rest),
        (WITHDRAW, "withdraw the image"),
    ]
    known = {decision for decision, _ in found}
    return found + [(doubt.decision, doubt.decision)] * (doubt.decision not in known)
