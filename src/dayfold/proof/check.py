"""Checks of machine and project, with fixes."""

import platform
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from dayfold import __version__
from dayfold.errors import CycleError, ParamsError
from dayfold.history import day_files, hand_edits, refusals
from dayfold.history.record import span
from dayfold.history.state import ProjectState, unused_folders
from dayfold.project import journal, storage, template, vcs
from dayfold.project.console import duration, first_few, plural, say
from dayfold.project.cpus import cpus, multiplies_bf16
from dayfold.project.files import is_free
from dayfold.project.layout import Project
from dayfold.project.params import Params
from dayfold.proof import verify
from dayfold.proof.verify import Verified

SPARE_BYTES = 2 << 30  # a day writes its model three times: output, cache and parent


class Result(NamedTuple):
    """The result of one check: `hint` says what to do, and `fix` does it if that is safe."""

    name: str
    found: str
    hint: str = ""
    fix: Callable[[], object] | None = None


def examine(project: Project, *, fix: bool, read_data: bool = False) -> int:
    """Run all checks and print a line for each; return how many problems are left.

    `fix` fixes at once what is safe: nothing that a person made is changed or removed.
    """
    left = 0
    for result in _results(project, read_data=read_data):
        if not result.hint and not (fix and result.fix):
            say(f"ok    {result.name:10} {result.found}")
        elif fix and result.fix:
            result.fix()
            say(f"fixed {result.name:10} {result.found}")
        else:
            left += 1
            fixes = "  (dayfold check --fix does it)" if result.fix else ""
            say(f"FIX   {result.name:10} {result.found}\n{'':17}→ {result.hint}{fixes}")
    say(f"{plural(left, 'problem')} left" if left else "all is well")
    return left


def _results(project: Project, *, read_data: bool) -> Iterator[Result]:
    yield from _tools(project)
    free = shutil.disk_usage(project.root).free
    hint = "free some; in the project: dvc gc --all-tags, never gc -w" * (free < SPARE_BYTES)
    yield Result("disk", f"{free / 2**30:.1f} GiB free", hint)
    yield _git_files(project.root)
    if template.is_older(project):
        yield Result(
            "params",
            "params.yaml and dvc.yaml are of an older version of dayfold",
            "write those of this version, with your values (docs/params.md lists the settings); "
            "weights now fall in a straight line over weights.versions",
            partial(template.upgrade, project),
        )
    try:
        now = ProjectState.read(project)
    except ParamsError as error:
        if not template.is_older(project):
            yield Result("params", error.what, "; ".join([*error.problems, error.hint]))
        return
    try:
        refusals.check(now, "check")
    except CycleError as error:
        yield Result("branch", error.what, error.hint)
    yield from _half_done(project)
    if now.is_open and (names := day_files.missing(project, now.day)):
        back = partial(day_files.restore, project, now.day)
        hint = "bring it back; or, to close the day: dayfold undo"
        yield Result("open day", f"gone: {', '.join(names)}", hint, back)
    yield _computing(now.params)
    for unused in unused_folders(now):
        yield Result("images", str(unused), unused.command)
    found = verify.verify(project, read_data=read_data)
    yield from _sharing(project, found)
    for day, what, fix in verify.shortened(found.damage):
        yield Result("days", f"{day}: {what}", fix)
    for day, what, fix in verify.shortened(found.absent):
        yield Result("days", f"{day}: {what}; to get it: {fix}")
    if found.damage:
        return
    try:
        hand_edits.check(now)  # as `status` does: no record has an added file
    except CycleError as error:
        yield Result("days", f"{error.what} {', '.join(error.problems)}", error.hint)
    yield Result("history", verify.summary(found))


def _tools(project: Project) -> Iterator[Result]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("dvc", "torch", "pillow", "numpy"))
    python = platform.python_version()
    yield Result("versions", f"dayfold {__version__}, python {python}, {packages}")
    found, hint = vcs.git(project.root, "--version").split()[2], ""
    if not vcs.git_succeeds(project.root, "var", "GIT_COMMITTER_IDENT"):
        found += "; it does not know who you are, so no day can be sealed"
        hint = 'git config --global user.name "…" && git config --global user.email "…"'
    elif branch := vcs.branch(project.root):
        found += f", on branch {branch}"
    yield Result("git", found, hint)


def _git_files(root: Path) -> Result:
    if lacking := template.lacking(root):
        names = " and ".join(path.name for path in lacking)
        found = f"{names} may let git change or hide hashed files"
        hint = "complete them: docs/operations.md, Line ends and ignore files"
        return Result("git files", found, hint, partial(template.complete, root))
    if changed := _changed_by_git(root):
        found = f"other attributes let git change hashed files: {', '.join(first_few(changed))}"
        hint = "git check-attr --all -- FILE shows which; take them out of .git/info/attributes, "
        return Result("git files", found, hint + ".gitattributes or one in a folder below")
    return Result("git files", "git neither changes nor ignores hashed files")


def _changed_by_git(root: Path) -> list[str]:
    # Only git knows: .git/info/attributes and those of a subfolder override the project's.
    files = vcs.git(root, "ls-files", "-z", "--", "data", "dvc.lock", "metrics.json", "params.yaml")
    words = ("text", "ident", "filter", "working-tree-encoding")
    said = vcs.split(vcs.git(root, "check-attr", "-z", "--stdin", *words, given=files))
    kept = {"unset": words, "unspecified": words[1:]}  # else core.autocrlf decides
    attributes = zip(said[::3], said[1::3], said[2::3], strict=True)
    return sorted({name for name, word, value in attributes if word not in kept.get(value, ())})


def _half_done(project: Project) -> Iterator[Result]:
    if busy := journal.at_work(project):
        yield Result("at work", ", ".join(busy))
        return
    found = journal.half_done(project)
    for item in found:
        said = f"{item.what}, since {duration(item.age)}"
        if item.is_lock and item.age < journal.YOUNG_SECONDS:
            yield Result("half done", said, "wait: git may be at work here or in another container")
        else:
            yield Result("half done", said, item.repair, item.fix)
    if note := journal.pending(project) if is_free(project.cycle_lock) else None:
        said = f"dayfold {note.command} did not end"
        yield Result("half done", said, "the next command repairs it")
    elif not found:
        yield Result("half done", "nothing")


def _computing(params: Params) -> Result:
    # Without torch, whose import takes 3 s.
    recipe, here = params.train, cpus()
    threads = f"{plural(recipe.threads, 'thread')} on {plural(here, 'CPU')}"
    found = f"{recipe.device}, {recipe.precision}, {threads}"
    if recipe.precision == "bf16" and not multiplies_bf16():
        found += "; this CPU does not multiply in bf16: fp32 is faster, but changes the bits"
    if recipe.threads <= here:
        return Result("device", found)
    hint = f"train.threads: {here} in params.yaml (from the next day on: it changes the bits)"
    return Result("device", f"{found}: more threads than CPUs, which is slow", hint)


def _sharing(project: Project, found: Verified) -> Iterator[Result]:
    urls, name = storage.remote_urls(project.root), storage.default_remote(project.root)
    if not urls:
        said = "none, so images and models are on this machine only (docs/operations.md, Sharing)"
        yield Result("remote", said)
        return
    if not name:
        said = f"{', '.join(urls)}; none is the default"
        yield Result("remote", said, f"dvc remote default {next(iter(urls))}")
        return
    if folder := storage.folder_of_url(urls[name]):
        said = f"{name} is a file:// URL, by which DVC copies into the folder file: of this project"
        fix = f"dvc remote modify {name} url {shlex.quote(folder)} && dvc push --all-tags"
        yield Result("remote", said, fix)
        return
    if late := storage.remote_is_newer(project.root, found.days):
        yield Result(
            "remote",
            f"{name} was set up after {found.days[0]} was sealed, so dvc push --all-tags and "
            "dvc fetch --all-tags skip such days",
            f"dvc remote add --local --default {name} URL",
            partial(storage.configure_locally, project.root),
        )
    if found.problem:
        yield Result("remote", f"{name} did not say what it has: {found.problem}")
    elif found.unpushed:
        days = span(found.unpushed, found.days)
        push = storage.push_command(project.root, all_tags=True)
        yield Result("remote", f"{name} does not have all of {days} yet; to push it: {push}")
    elif not late:
        yield Result("remote", f"{name} has all that this machine has of the sealed days")
