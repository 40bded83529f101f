"""Every command that a page shows is run as it stands: here, page by page, or by a test named."""

import inspect
import re
import shlex
import shutil
import subprocess
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tools
from builders import IDENTITY, ROOT, a_free_port
from conftest import copied
from dayfold.project import vcs
from pages import PAGES, SPEAKING, commands

pytestmark = pytest.mark.slow
CLASSES = ("0", "1", "2")
PATH = "data/images/2025-06-02/cyst/041.png"
MERGED = "dvc.lock metrics.json data/{provenance.json,evaluations,gates,metrics,plots}"

# Run by another test, which has all the words.
DEMO = "test_demo.test_make_demo_forgets_little_and_knows_every_class"
SHARING = "test_sharing.test_two_clones_that_sealed_the_same_day_are_told_and_one_gives_way"
ELSEWHERE = {
    "make demo": DEMO,
    "dayfold reproduce 2025-06-04": "test_tutorial.test_the_third_day_is_made_again_to_the_bit",
    "dayfold reproduce --all": "test_reproduce.test_interrupted_it_leaves_no_worktree",
    "git pull --ff-only --tags && dvc pull": SHARING,
    "dayfold run data/undone/2025-06-05/images/2025-06-05 --day 2025-06-06": SHARING,
}
# Shown on several pages, and run on this one only: they change nothing.
ONCE = {
    "dayfold reproduce --all --from-scratch": "docs/reproducibility.md",
    "dayfold check --read-data": "docs/reproducibility.md",
    "dayfold audit --html": "docs/using.md",
    "dayfold export scans.onnx --day 2025-06-04": "docs/using.md",
}

# What stands in a page for something of the reader's own.
READ_AS = {
    PATH: "data/images/2025-06-02/0/digit-0000.png",
    "cyst": "0",
    "tumour": "1",
    # Fewer policies and days, for time.
    "backtest --seeds 3": "backtest --policy naive --days ..2025-06-03",
    "backtest --set replay.size=1000": "backtest --set replay.size=1000 --days ..2025-06-03",
    " --seeds 3": " --days ..2025-06-03",
    "--all --from-scratch": "2025-06-02 --from-scratch",
    # On a terminal it asks.
    "--erase": "--erase --yes",
    # ImageNet's weights are a download.
    "dayfold init scans &&": "dayfold init scans --weights random --image-size 16 &&"
    " sed -i 's/updates: 150/updates: 2/' scans/params.yaml &&",
    "--weights imagenet --image-size 224": "--weights random --image-size 16",
    "/mnt/team/store": "../store",
    " URL": " ../store",
    "/incoming/today": "~/scans/today --day 2025-06-05",
    "/srv/scans": "$SCANS",
    "rsync -a ./ second:scans/": "cp -a . ../second",
    "PET_NNODES=2 PET_NODE_RANK=1": "cd ../second; PET_NNODES=2 PET_NODE_RANK=1",
    "MASTER_ADDR=first PET_MASTER_PORT=29500": "MASTER_ADDR=127.0.0.1 PET_MASTER_PORT=$PORT",
}
CRONTAB = re.compile(r"^[\d*]+ [\d*]+ [\d*]+ [\d*]+ [\d*]+ +")

# What a page's text presumes before a command.
BEFORE = {
    "README.md": {
        "dayfold init scans && cd scans": "mkdir ../new && cd ../new",
        "dayfold add ~/scans/today": "cd $SCANS",
    },
    "docs/using.md": {"dayfold predict ~/scans/new scan.png": "cp ~/scans/new/P0_0.png scan.png"},
    "docs/cli.md": {
        "dayfold init scans --weights imagenet --image-size 224": "mkdir ../new && cd ../new",
        "dayfold add ~/scans/today": "cd $SCANS",
        'dayfold seal -m "first scans of the new probe"': "dvc repro",
        f"dayfold relabel {PATH} --to tumour": "dayfold undo --yes",
        f'dayfold withdraw {PATH} --reason "consent"': f"dayfold relabel {PATH} --undo",
    },
    "docs/corrections.md": {
        "dayfold relabel --from audit.csv": f"""
            dayfold relabel {PATH} --undo
            printf 'path,decision\n{PATH},node\n' > audit.csv
        """,
        f'dayfold withdraw {PATH} --reason "no consent"': f"dayfold relabel {PATH} --undo",
        f'dayfold withdraw {PATH} --erase --reason "consent withdrawn"': f"""
            dayfold withdraw {PATH} --undo
        """,
    },
    "docs/intake.md": {
        "dayfold add scans.zip": "python -m zipfile -c scans.zip ~/scans/today/*",
        "dayfold add ~/scans --labels labels.csv": """
            echo path,label > labels.csv
            printf '%s\n' ~/scans/today/*/* | sed -E 's|.*/(today/(.)/.*)|\\1,\\2|' >> labels.csv
        """,
    },
    "docs/labelling.md": {
        "dayfold add ~/scans/unlabelled --labels queue.csv": "sed -i 's/png,,/png,0,/' queue.csv",
        "dayfold add imagenet.zip": "python -m zipfile -c imagenet.zip ~/archive/2025-06-04/*",
    },
    "docs/operations.md": {
        "git remote add origin git@example.org:team/scans.git": """
            git init --bare ../team/scans.git
        """,
        "dvc remote add --default store ssh://me@host/srv/store": "git restore .dvc/config",
        "dvc remote add --default store /mnt/team/store": "git restore .dvc/config",
        "dvc remote add --default store URL": """
            dvc remote remove store
            git commit --all --message 'As if there had been no remote'
        """,
        "git clone git@example.org:team/scans.git && cd scans": """
            git push --all
            git push --tags
            mkdir ../new
            cd ../new
        """,
        "dvc pull": "dvc remote add --local --default store ../../store",
        f"git checkout --theirs {MERGED}": """
            dayfold add ~/scans/today --day 2025-06-06
            dvc repro
            git add .
            git commit --message 'Open'
            git checkout -b theirs
            sed -i 's/max_forgetting: null/max_forgetting: 1.0/' params.yaml
            dvc repro
            git commit --all --message 'Theirs'
            git checkout main
            dvc checkout
            sed -i 's/min_class_f1: null/min_class_f1: 0.0/' params.yaml
            dvc repro
            git commit --all --message 'Ours'
            ! git merge theirs
        """,
        "dayfold undo --seal --yes": """
            git commit --all --message 'Merged'
            dayfold seal
        """,
        "dvc repro replay && rsync -a ./ second:scans/": """
            dayfold add ~/scans/today
            sed -i 's/processes: 1/processes: 2/' params.yaml
        """,
    },
}


class Walk:
    """A reader who has a project of three sealed days, and types what a page shows."""

    def __init__(self, top: Path) -> None:
        self.top, self.home, self.project = top, top / "home", top / "scans"
        self._here, self._given = self.project, 0
        self.home.mkdir(exist_ok=True)
        (self.home / ".gitconfig").write_text(
            f'[init]\ndefaultBranch = main\n[url "{top}/"]\ninsteadOf = git@example.org:\n'
        )
        self._environment = {
            **vcs.environment(),
            **IDENTITY,
            "HOME": str(self.home),
            "SCANS": str(self.project),
            "PORT": str(a_free_port()),
            "BROWSER": "true",
        }
        self._waiting: list[tuple[str, subprocess.Popen[str]]] = []

    def images(self, folder: Path) -> None:
        """Give a folder eight images that no other has."""
        folder.mkdir(parents=True, exist_ok=True)
        chance = np.random.default_rng(self._given)
        self._given += 1
        for number in range(8):
            pixels = chance.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"P{number // 2}_{number}.png")

    def type(self, command: str) -> None:
        """Run a line of shell where the last one ended; the images of a day are always new."""
        if "scans/today" in command:
            for label in CLASSES:
                self.images(self.home / "scans" / "today" / label)
        ended = self.top / "ended"
        line = f"cd {shlex.quote(str(self._here))}\n{command}\ncode=$?"
        is_first_of_two = "PET_NODE_RANK=0" in command
        if not is_first_of_two:
            line += f"\npwd > {shlex.quote(str(ended))}"
        line += "\nexit $code"
        running = subprocess.Popen(
            ("bash", "-e", "-c", line),
            env=self._environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._waiting.append((command, running))
        if is_first_of_two:  # it waits for the second machine
            return
        began = time.monotonic()
        for typed_in, one in self._waiting:
            said, _ = one.communicate("y\n", timeout=1800)  # to `dvc gc`, which asks
            print(f"{time.monotonic() - began:.1f} s $ {typed_in}\n{said}")
            assert one.returncode == 0, f"{typed_in}\n{said}"
        self._waiting = []
        self._here = Path(ended.read_text().strip())


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def typed(page: Path) -> list[str]:
    """The commands of a page, without comments."""
    return [re.sub(r"\s+#.*", "", one.command) for one in commands(page)]


def meant(command: str) -> str:
    """A command with what the reader has in the place of the page's examples."""
    for shown, mine in READ_AS.items():
        command = command.replace(shown, mine)
    return CRONTAB.sub("", command)


@pytest.mark.parametrize(
    "page", [one for one in PAGES if one.stem != "tutorial" and commands(one)], ids=name_of
)
def test_every_command_shown_is_run(page, three_days, tmp_path):
    shutil.copytree(three_days.root, tmp_path / "scans", symlinks=True, copy_function=copied)
    archive = three_days.root.parent / "archive"
    is_none = shutil.ignore_patterns("page.png")
    shutil.copytree(archive, tmp_path / "home" / "archive", ignore=is_none)
    walk = Walk(tmp_path)
    walk.type("git branch --move main")
    walk.images(walk.home / "scans" / "new")
    walk.images(walk.home / "scans" / "unlabelled")
    tools.deliver(walk.home / "labelled")
    before = dict(BEFORE.get(name_of(page), {}))
    for command in typed(page):
        if command in ELSEWHERE or ONCE.get(command, name_of(page)) != name_of(page):
            continue
        if command in before:
            walk.type(meant(before.pop(command)))
        walk.type(meant(command))
    assert not before


@pytest.mark.parametrize(("command", "test"), ELSEWHERE.items())
def test_a_command_that_another_test_runs_is_all_there(command, test):
    module, name = test.split(".")
    source = inspect.getsource(getattr(import_module(module), name))
    for word in re.findall(r"[a-z-]{3,}", command):
        assert word in source, word


def test_no_note_is_about_a_command_that_is_not_shown():
    shown = {command for page in PAGES for command in typed(page)}
    assert {*ELSEWHERE, *ONCE} <= shown
    # That of a new project shows the cycle of the README.
    assert {re.sub(r"FOLDER|~\S+", "", one) for one in typed(SPEAKING[-1])} <= {
        re.sub(r"FOLDER|~\S+", "", one) for one in shown
    }
    assert all(any(part in command for command in shown) for part in READ_AS)
