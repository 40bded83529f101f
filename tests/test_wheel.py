"""The wheel, without the sources beside it."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from dayfold.demo import DAYS
from dayfold.project import params
from dayfold.project.layout import Project

pytestmark = pytest.mark.slow


def test_the_wheel_alone_makes_a_project_and_a_day(tmp_path, shell, digits, repository):
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path))
    subprocess.run([*build, str(repository)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("dayfold-*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("dayfold/")}
    # Pages' templates and style sheets too, which this day does not use.
    sources = [path for path in (repository / "src").rglob("*") if path.is_file()]
    names = {path.relative_to(repository / "src").as_posix() for path in sources}
    assert {name for name in names if "__pycache__" not in name} <= held
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet")
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    # The heavy dependencies are shared; a .pth file adds them without the sources' own .pth.
    packages = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    shared = packages / "site-packages" / "shared.pth"
    shared.write_text(sysconfig.get_path("purelib") + "\n")
    alone = {"PATH": f"{home / 'bin'}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": ""}
    where = shell(tmp_path, str(python), "-c", "import dayfold; print(dayfold.__file__)", **alone)
    assert where.startswith(str(home))
    command = str(home / "bin" / "dayfold")
    words = ("--weights", "random", "--image-size", "16")
    shell(tmp_path, command, "init", "scans", *words, **alone)
    project = Project(tmp_path / "scans")
    assert project.dvc_yaml.read_bytes() == (repository / "dvc.yaml").read_bytes()
    quick = {"train.updates": 2, "train.batch_size": 4, "train.threads": 1}
    params.edit(project.params, quick)
    few = tmp_path / "few"
    for label in ("0", "1"):
        (few / label).mkdir(parents=True)
        for image in sorted((digits / DAYS[0] / label).iterdir())[:10]:
            shutil.copy(image, few / label)
    said = shell(project.root, command, "run", str(few), "--day", DAYS[0], **alone)
    assert f"sealed as day/{DAYS[0]}" in said
