"""Checks of machine and project, a line each, with a fix for each problem."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

from dayfold import __version__
from dayfold.errors import CycleError, DayfoldError
from dayfold.ledger import stray_images
from dayfold.project import gitfiles, half_done, journal, remotes, upgrade, vcs
from dayfold.project import params as params_file
from dayfold.project.console import duration, first_few, plural
from dayfold.project.cpus import cpus, model_name, multiplies_bf16
from dayfold.project.files import is_free
from dayfold.project.layout import UNOPENED, Project
from dayfold.project.params import Params
from dayfold.proof import reproduce, verify
from dayfold.proof.record import span
from dayfold.proof.verify import Verified

# Where a GPU's driver shows: NVIDIA's, the same in WSL and on a Jetson, AMD's.
GPUS = ("/proc/driver/nvidia", "/dev/dxg", "/dev/nvgpu", "/dev/nvhost-gpu", "/dev/kfd")
SPARE_BYTES = 2 << 30  # a day writes its model three times: as output, in the cache, as parent
Say = Callable[[str], None]


class Sign(NamedTuple):
    """One thing that was looked at: `hint` says what to do, and `fix` does it if that is safe."""

    name: str
    found: str
    hint: str = ""
    fix: Callable[[], object] | None = None


def examine(project: Project, *, fix: bool, say: Say, read_data: bool = False) -> int:
    """Look at everything and say it, a line each; return how many things are left to fix.

    With `fix` what is safe is fixed at once: nothing that a person made is changed or removed.
    """
    left = 0
    for sign in _signs(project, read_data=read_data):
        if not sign.hint and not (fix and sign.fix):
            say(f"ok    {sign.name:10} {sign.found}")
        elif fix and sign.fix:
            sign.fix()
            say(f"fixed {sign.name:10} {sign.found}")
        else:
            left += 1
            fixes = "  (dayfold check --fix does it)" if sign.fix else ""
            say(f"FIX   {sign.name:10} {sign.found}\n{'':17}→ {sign.hint}{fixes}")
    say(f"{plural(left, 'problem')} left" if left else "all is well")
    return left


def _signs(project: Project, *, read_data: bool) -> Iterator[Sign]:
    yield from _tools(project)
    yield _disk(project)
    yield from _git_files(project)
    yield from _params(project)
    try:
        params = params_file.read(project.params)
    except DayfoldError:
        return
    yield from _half_done(project)
    yield from _computing(project, params)
    yield from _strays(project, params)
    found = verify.verify(project, read_data=read_data, ask_all=True)
    yield from _sharing(project, found)
    yield from _days(project, params, found)


def _tools(project: Project) -> Iterator[Sign]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("dvc", "torch", "pillow", "numpy"))
    yield Sign("versions", f"dayfold {__version__}, python {platform.python_version()}, {packages}")
    found, hint = vcs.git(project.root, "--version").split()[2], ""
    if not vcs.git_says(project.root, "var", "GIT_COMMITTER_IDENT"):
        found += "; it does not know who you are, so no day can be sealed"
        hint = 'git config --global user.name "…" && git config --global user.email "…"'
    elif not (branch := vcs.branch(project.root)):
        found += "; no branch is checked out: what is sealed here is on none"
        hint = "git checkout the branch of the last day && dvc checkout; or, to begin another "
        hint += "history from here, git checkout -b NAME"
    elif vcs.git(project.root, "rev-parse", "--is-shallow-repository").strip() == "true":
        found += "; a shallow clone: earlier days are not in it"
        hint = "git fetch --unshallow --tags"
    else:
        found += f", on branch {branch}"
    yield Sign("git", found, hint)


def _git_files(project: Project) -> Iterator[Sign]:
    """Whether git keeps the bytes of what is hashed, and hides nothing that a seal commits."""
    root = project.root
    if changed := gitfiles.converted(root) or gitfiles.changed_by_git(root):
        yield Sign(
            "line ends",
            f"git changes the bytes of hashed files, or may: {', '.join(first_few(changed))}",
            "mark them -text in .gitattributes and check them out again; the next seal commits it",
            partial(gitfiles.keep, root),
        )
    else:
        yield Sign("line ends", "git changes none of what is hashed")
    if hidden := gitfiles.hidden(root):
        yield Sign(
            "ignored",
            f"git ignores files of the project: {', '.join(first_few(hidden))}",
            "git check-ignore -v FILE shows by which line; add !FILE to .gitignore",
            partial(gitfiles.keep, root),
        )


def _params(project: Project) -> Iterator[Sign]:
    """Whether params.yaml can be read, and is this version's as dvc.yaml is."""
    if upgrade.needed(project):
        yield Sign(
            "params",
            "params.yaml or dvc.yaml is of an older version of dayfold",
            "remove settings that no longer exist (docs/params.md lists the others); weights now "
            "fall in a straight line over weights.versions",
            partial(upgrade.apply, project),
        )
    try:
        params_file.read(project.params)
    except DayfoldError as error:
        if not upgrade.needed(project):
            yield Sign("params", error.what, "; ".join([*error.problems, error.hint]))


def _disk(project: Project) -> Sign:
    free = shutil.disk_usage(project.root).free
    found = f"{free / 2**30:.1f} GiB free"
    if free < SPARE_BYTES:
        return Sign("disk", found, "free some; in the project: dvc gc --all-tags, never gc -w")
    try:
        journal.check_writable(project)
    except CycleError as error:
        return Sign("disk", f"{found}; {error.problems[0]}", error.hint)
    return Sign("disk", found)


def _half_done(project: Project) -> Iterator[Sign]:
    """What kills left, of DVC, of git and of dayfold, unless something is at work."""
    if busy := half_done.at_work(project):
        yield Sign("at work", ", ".join(busy))
        return
    found = half_done.find(project)
    for one in found:
        said = f"{one.what}, since {duration(one.age)}"
        if one.is_lock and one.age < half_done.YOUNG_SECONDS:
            yield Sign("half done", said, "wait: a git may be at work, also in another container")
        else:
            yield Sign("half done", said, one.said, one.fix)
    note = half_done.pending(project) if is_free(project.cycle_lock) else None
    if note:
        said = f"dayfold {note.command} did not end"
        yield Sign("half done", said, "the next command repairs it")
    left = reproduce.leftovers(project)
    if left:
        said = f"{len(left)} worktrees of a killed dayfold reproduce"
        fix = partial(reproduce.clear, project)
        yield Sign("half done", said, "removed by the next one", fix)
    if not found and not left and not note:
        yield Sign("half done", "nothing")


def _computing(project: Project, params: Params) -> Iterator[Sign]:
    """Whether the recipe fits this machine; torch, which takes 3 s to import, is not asked."""
    recipe, here = params.train, cpus()
    found = f"{recipe.device}, {recipe.precision}, {plural(recipe.threads, 'thread')}"
    found += f" on {plural(here, 'CPU')}"
    is_cpu = recipe.device == "cpu" or not any(map(os.path.exists, GPUS))

    def measure() -> None:
        from dayfold.learning import speed

        speed.pin(project, params)

    if recipe.threads > here:
        yield Sign(
            "device",
            f"{found}: more threads than CPUs, which is slow",
            f"train.threads: {here} in params.yaml (from the next day on: it changes the bits)",
        )
    elif is_cpu and recipe.precision == "bf16" and not multiplies_bf16():
        yield Sign(
            "device",
            f"{found}: this CPU does not multiply in bf16, which is slow",
            "train.precision: fp32 in params.yaml (it changes the bits)",
            measure,
        )
    elif recipe.precision == "auto" and multiplies_bf16():
        yield Sign("device", f"{found}; --fix measures which precision pays here", fix=measure)
    else:
        yield Sign("device", found + _moved(project))


def _moved(project: Project) -> str:
    """A word where the last day was trained on another kind of CPU than this one."""
    try:
        then = json.loads(project.provenance.read_bytes())["fingerprint"]["cpu"]
    except (OSError, ValueError, KeyError):
        return ""
    if then == model_name():
        return ""
    return f"; the last day was trained on {then}, so set train.precision: auto, then --fix"


def _sharing(project: Project, found: Verified) -> Iterator[Sign]:
    """The default remote: whether there is one, whether all days know it, and what it lacks."""
    names, name = remotes.names(project.root), remotes.default(project.root)
    if not names:
        said = "none, so images and models are on this machine only (docs/operations.md, Sharing)"
        yield Sign("remote", said)
        return
    if not name:
        said = f"{', '.join(names)}; none is the default"
        yield Sign("remote", said, f"dvc remote default {names[0]}")
        return
    if late := remotes.is_late(project.root, found.days):
        yield Sign(
            "remote",
            f"{name} was set up after {found.days[0]} was sealed, so that dvc push and dvc fetch "
            "--all-tags pass over such days",
            f"dvc remote add --local --default {name} URL",
            partial(remotes.hold_everywhere, project.root),
        )
    if found.problem:
        yield Sign("remote", f"{name} could not be asked what it has: {found.problem}")
    elif found.unpushed:
        days = span(found.unpushed, found.days)
        push = remotes.pushing(project.root, all_tags=True)
        yield Sign("remote", f"{name} does not have all of {days} yet; to push it: {push}")
    elif not late:
        yield Sign("remote", f"{name} has all that this machine has of the sealed days")


def _strays(project: Project, params: Params) -> Iterator[Sign]:
    is_open = params.day != UNOPENED and params.day not in vcs.sealed_days(project.root)
    for stray in stray_images.find(project, params, is_open=is_open):
        yield Sign("images", str(stray), stray.command)


def _days(project: Project, params: Params, found: Verified) -> Iterator[Sign]:
    if params.day == UNOPENED:
        yield Sign("days", "none yet")
        return
    sealed = vcs.sealed_days(project.root)
    said, hint = "open; dayfold status says what comes next", ""
    if params.day in found.days:
        said = "sealed" if params.day in sealed else "committed"
    elif sealed and params.day < sealed[-1]:
        said = f"open, but {sealed[-1]} is sealed already"
        hint = "docs/operations.md, two clones that sealed"
    yield Sign("today", f"{params.day} is {said}", hint)
    for day, what, fix in verify.folded(found.damage):
        yield Sign("days", f"{day}: {what}", fix)
    for day, what, fix in verify.folded(found.absent):
        yield Sign("days", f"{day}: {what}; to get it: {fix}")
    if not found.damage:
        yield Sign("history", verify.summary(found))
