"""Pictures in colour from free packages: letters of many fonts, and icons of many desktop themes.

Nothing of them is kept in git: the first run fetches them into ~/.cache/dayfold-benchmarks (or
$XDG_CACHE_HOME). Letters need npm, icons apt-get and dpkg-deb, so Debian or a child of it.

Letters: the latin regular files of 183 families of @fontsource/* (OFL, Apache or UFL). Thirteen
letters, upper and lower case, drawn at 64 px in two colours, turned, moved and noisy; a group is a
font. Four letters join, and handwriting does from day 11 on.

Icons: the PNG files of 48 px and more of fifteen icon themes of Debian (GPL, LGPL, CC-BY-SA or
CC0, as each package's copyright file says). Twenty things, each drawn by many artists; a group is
what a family of themes calls alike (`battery-full`), in all states and sizes. Mail and weather
join, a calculator comes on one day with few images, printers stay away for four days, and flat
themes join on day 6. Neither says anything of texture, of photographs or of ultrasound.
"""

import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dayfold import draws

Pixels = NDArray[np.float64]  # [h, w, 3] in 0..255
Arrival = tuple[int, str, int, list[Pixels]]  # group, label, day, frames

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dayfold-benchmarks"
SIDE_PX = 64

LETTERS, LETTER_DAYS = "ABDEGHKMNQRST", 15
LETTER_JOINS, HAND_FROM = {"Q": 3, "R": 6, "S": 9, "T": 12}, 10
FONTS = {
    "print": """
abel abril-fatface acme alegreya aleo alfa-slab-one amiri anton archivo arimo arvo asap assistant
barlow be-vietnam-pro bebas-neue bitter bree-serif cabin cairo cantarell cardo catamaran chivo
cinzel comfortaa commissioner concert-one cormorant-garamond crete-round crimson-text cuprum
didact-gothic dm-sans dm-serif-display domine dosis eb-garamond eczar encode-sans exo-2 faustina
figtree fira-code fira-sans fjalla-one francois-one frank-ruhl-libre gelasio gothic-a1 hind
ibm-plex-mono ibm-plex-sans ibm-plex-serif inconsolata inter istok-web josefin-sans josefin-slab
jost jura kanit karla lato lexend libre-baskerville libre-franklin lora lusitana manrope maven-pro
merriweather mitr monda montserrat mukta mulish neuton noticia-text noto-sans noto-serif nunito
old-standard-tt open-sans orbitron oswald outfit overpass oxygen passion-one pathway-gothic-one
patua-one play playfair-display poppins pragati-narrow prata prompt pt-mono pt-sans pt-serif
public-sans quattrocento questrial quicksand rajdhani raleway red-hat-display righteous roboto
roboto-mono roboto-slab rokkitt rubik ruda russo-one saira sanchez sarabun secular-one signika
slabo-27px sora source-code-pro source-sans-3 source-serif-4 space-grotesk space-mono spectral
staatliches tajawal teko tinos titillium-web ubuntu ultra unna urbanist varela vollkorn work-sans
yanone-kaffeesatz zilla-slab
""",
    "hand": """
allura amatic-sc bad-script caveat caveat-brush cookie courgette covered-by-your-grace
dancing-script gloria-hallelujah gochi-hand great-vibes handlee homemade-apple indie-flower
just-another-hand kalam kaushan-script lobster lobster-two merienda mr-dafoe nanum-pen-script
neucha nothing-you-could-do pacifico pangolin parisienne patrick-hand permanent-marker
pinyon-script reenie-beanie rock-salt sacramento satisfy shadows-into-light sriracha tangerine
yellowtail zeyada
""",
}

ICON_DAYS, FLAT_FROM = 10, 5
THEMES = {  # look → families: within one, themes share drawings, so they share groups too
    "drawn": (
        "adwaita-icon-theme gnome-brave-icon-theme gnome-colors-common gnome-human-icon-theme "
        "gnome-icon-theme mate-icon-theme tango-icon-theme",
        "elementary-xfce-icon-theme",
        "faenza-icon-theme",
        "lxde-icon-theme",
        "oxygen-icon-theme",
        "yaru-theme-icon",
    ),
    "flat": ("mint-y-icons", "moka-icon-theme", "paper-icon-theme"),
}
THINGS = {  # class → what themes call it
    "arrow": r"go-(next|previous|up|down|first|last|top|bottom|jump).*|arrow.*",
    "battery": r"battery.*|gpm-(battery|primary).*",
    "calculator": r".*calc(ulator)?",
    "calendar": r".*calendar.*",
    "camera": r"camera.*|.*-camera",
    "disc": r"media-(optical|cdrom|dvd|cd).*|drive-optical.*|.*-cd-image",
    "drive": r"drive-(harddisk|removable).*",
    "folder": r"folder.*",
    "keyboard": r".*keyboard.*",
    "mail": r"mail.*|.*-mail|evolution|thunderbird.*",
    "music": r"audio-x.*|.*music.*|rhythmbox",
    "package": r"package.*|.*archive|application-(zip|x-(tar|rar|zip|7z|compressed).*)",
    "picture": r"image-(x-.*|gif|jpeg|png|bmp|tiff)",
    "printer": r"printer.*|document-print.*",
    "search": r".*search.*|edit-find.*|zoom.*",
    "speaker": r"audio-volume.*|.*speaker.*",
    "terminal": r".*terminal.*|xterm|konsole",
    "text": r"text-x.*",
    "user": r"user-info|avatar.*|system-users|stock_person.*",
    "weather": r"weather.*",
}
FEW = "calculator"
THING_DAYS = {  # of those that do not come every day
    "mail": range(2, ICON_DAYS),
    "weather": range(3, ICON_DAYS),
    FEW: range(4, 5),
    "printer": (0, 1, 6, 7, 8, 9),
}
PER_GROUP = 12  # images at most


def letters(seed: int) -> Iterator[Arrival]:
    """Every letter of every font on the font's day; the seed shuffles which font comes when."""
    number = 0
    for kind, first in (("print", 0), ("hand", HAND_FROM)):
        fonts = _fonts(kind)
        for turn, at in enumerate(_shuffled("font", seed, [font.name for font in fonts])):
            day = first + turn % (LETTER_DAYS - first)
            for text in LETTERS:
                if day >= LETTER_JOINS.get(text, 0):
                    yield number, text, day, [_letter(fonts[at], x) for x in (text, text.lower())]
            number += 1


def icons(seed: int) -> Iterator[Arrival]:
    """Every group of icons on one day; the seed shuffles which comes when."""
    number = 0
    seen: set[bytes] = set()  # themes copy from each other
    for look, first in (("drawn", 0), ("flat", FLAT_FROM)):
        groups = _groups(look)
        for thing in THINGS:
            mine = [name for label, name in groups if label == thing]
            days = [day for day in THING_DAYS.get(thing, range(ICON_DAYS)) if day >= first]
            for turn, at in enumerate(_shuffled(thing, seed, mine)) if days else ():
                files = groups[thing, mine[at]]
                kept = [files[one] for one in _shuffled("icon", "", [file.name for file in files])]
                drawn = {image.tobytes(): image for image in map(_icon, kept)}
                fresh = [image for data, image in drawn.items() if data not in seen][:PER_GROUP]
                seen.update(drawn)
                yield number, thing, days[turn % len(days)], fresh
                number += 1


def _shuffled(purpose: str, seed: int | str, names: list[str]) -> list[int]:
    return list(map(int, np.argsort(draws.uniforms(purpose, seed, ids=names))))


def _letter(font: Path, text: str) -> Pixels:
    """Draw a letter in two colours, turned, moved and noisy by a hash of its name: [64, 64, 3]."""
    name = f"{font.name} {text}"
    drawn = draws.uniforms("letter", name, ids=[str(number) for number in range(10)])
    back, front = (tuple(int(30 + 195 * part) for part in drawn[at : at + 3]) for at in (0, 3))
    if sum(abs(a - b) for a, b in zip(back, front, strict=True)) < 150:
        front = tuple(255 if part < 128 else 0 for part in back)
    shape = ImageFont.truetype(font, int(34 + 16 * drawn[6]))
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), back)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=shape)
    across, down = (SIDE_PX / 2 + 8 * (drawn[at] - 0.5) for at in (7, 8))
    pen.text((across - (left + right) / 2, down - (top + bottom) / 2), text, front, shape)
    turned = image.rotate(24 * (drawn[9] - 0.5), Image.Resampling.BICUBIC, fillcolor=back)
    noise = draws.uniform_array("letter", name, shape=(SIDE_PX, SIDE_PX, 3))
    return np.clip(np.asarray(turned) + 24 * noise, 0, 255)


def _icon(file: Path) -> Pixels:
    """An icon on a light ground of a colour drawn by its name: [64, 64, 3]."""
    ground = 155 + 100 * draws.uniforms("ground", str(file.name), ids=["r", "g", "b"])
    with Image.open(file) as opened:
        small = opened.convert("RGBA").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    image = Image.new("RGBA", small.size, (*map(int, ground), 255))
    image.alpha_composite(small)
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def _fonts(kind: str) -> list[Path]:
    """The files of a kind's fonts, fetched once."""
    folder = CACHE / "fonts" / kind
    folder.mkdir(parents=True, exist_ok=True)
    names = FONTS[kind].split()
    missing = [f"@fontsource/{name}" for name in names if not (folder / f"{name}.woff2").exists()]
    if missing:
        pack = ["npm", "pack", "--silent", *missing]
        subprocess.run(pack, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for packed in sorted(folder.glob("fontsource-*.tgz")):
            name = re.sub(r"^fontsource-|-[\d.]+\.tgz$", "", packed.name)
            with tarfile.open(packed) as archive:
                upright = [one for one in archive.getnames() if one.endswith("-normal.woff2")]
                latin = sorted(one for one in upright if "-latin-" in one)
                regular = [one for one in latin if "-400-" in one] or latin
                archive.extract(regular[0], folder, filter="data")
                (folder / regular[0]).rename(folder / f"{name}.woff2")
            packed.unlink()
    return [folder / f"{name}.woff2" for name in names]


def _groups(look: str) -> dict[tuple[str, str], list[Path]]:
    """(thing, family and first two words of the name) → the icon files, of 48 px and more."""
    found: dict[tuple[str, str], list[Path]] = {}
    for family in THEMES[look]:
        for theme in family.split():
            folder = CACHE / "icons" / theme
            if not folder.exists():
                _unpack(theme, folder)
            for file in sorted(folder.rglob("*.png")):
                size = re.search(r"/(\d+)(?:x\d+)?(@2x)?/", str(file.relative_to(folder)))
                if file.is_symlink() or not size or int(size[1]) * (2 if size[2] else 1) < 48:
                    continue
                thing = next((a for a, name in THINGS.items() if re.fullmatch(name, file.stem)), "")
                if thing and "symbolic" not in str(file) and "emblem" not in str(file):
                    words = "-".join(file.stem.split("-")[:2])
                    found.setdefault((thing, f"{family} {words}"), []).append(file)
    return found


def _unpack(package: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "-q", "download", package], cwd=folder.parent, check=True)
    deb = next(folder.parent.glob(f"{package}_*.deb"))
    half = folder.with_suffix(".half")
    subprocess.run(["dpkg-deb", "-x", deb.name, half.name], cwd=folder.parent, check=True)
    deb.unlink()
    half.rename(folder)
