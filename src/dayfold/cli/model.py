"""Commands that use a model."""

from pathlib import Path
from typing import Annotated

import typer

from dayfold.cli.top import MODEL, command, here, option, warn_of_edits, without_collector
from dayfold.errors import IntakeError
from dayfold.project.console import say

ModelDay = Annotated[
    str | None,
    option("By default the last that did not fail its gate.", "--day", metavar="YYYY-MM-DD"),
]


@command(MODEL, "dayfold predict ~/scans/unlabelled --csv predicted.csv")
def predict(
    sources: Annotated[
        list[Path], typer.Argument(metavar="IMAGE|FOLDER…", help="Images, and folders of them.")
    ],
    day: ModelDay = None,
    output: Annotated[
        Path | None,
        option("Write a line for each image to FILE.", "--csv", "--output", "-o", metavar="FILE"),
    ] = None,
    top: Annotated[int, option("Classes to list for each image.", min=1)] = 1,
    queue: Annotated[
        int | None, option("Write to FILE which N images to label next.", min=1, metavar="N")
    ] = None,
    form: Annotated[
        str, option("What --queue writes.", "--format", metavar="csv|label-studio")
    ] = "csv",
) -> None:
    """Classify images with confidence; below predict.threshold the answer is "not sure".

    Exit code 4: an image, or a file that you named, cannot be read; all others are answered.
    """
    with without_collector():
        from dayfold.serve import model as models
        from dayfold.serve import predicting

    is_queue = len(sources) == 1 and sources[0].is_dir() and output and top == 1
    if not is_queue if queue else form != "csv":
        raise IntakeError(
            "--queue takes one folder and a file to write; --top does not go with it.",
            hint="dayfold predict FOLDER --queue 50 -o queue.csv",
        )
    if output and (output.is_dir() or str(output) == "-"):
        raise IntakeError(f"{output} is no file.", hint="name a file: --csv predicted.csv")
    paths, project = [] if queue else predicting.images(sources), here()
    model = models.load(project.root, day)
    say(models.describe_choice(project, model.day, day))
    if queue and output:
        predicting.write_queue(
            project, model, sources[0], count=queue, file=output, form=form, say=say
        )
        return
    named = [path for path in sources if not path.is_dir()]
    predicting.predict(model, paths, named=named, top=top, csv=output, say=say)


@command(MODEL, "dayfold export scans.onnx --day 2025-06-04")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    day: ModelDay = None,
    form: Annotated[
        str | None,
        option(
            "By default by ending: .onnx, .safetensors, .md (the card alone).",
            "--format",
            metavar="onnx|safetensors|card",
        ),
    ] = None,
) -> None:
    """Export a day's model for other programs, checked, with a README and a model card."""
    with without_collector():
        from dayfold.serve import exporting

    meant, project = exporting.form_of(file, form), here()
    warn_of_edits(project)
    for path in exporting.export(project, file, day=day, form=meant, say=say):
        print(f"written: {path}")


@command(MODEL, "dayfold audit --html")
def audit(
    top: Annotated[
        int | None, option("Images to list; all doubtful ones by default.", min=1)
    ] = None,
    html: Annotated[bool, option("Also write a page with the pictures.", "--html")] = False,
) -> None:
    """List images whose label is probably wrong, new ones first, in data/audit/<day>.csv.

    Decide there; `dayfold relabel --from` applies it.
    """
    with without_collector():
        from dayfold.serve import auditing

    project = here()
    found = auditing.run(project, top=top)
    print(*auditing.summary(found, project), sep="\n")
    if html:
        auditing.write_page(project, found)
        print(f"HTML page: {project.name(project.audit_page(found.day))}")
