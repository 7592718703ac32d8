"""Drawings with names from public-domain and permissively licensed packages (see NOTICE), fetched once and pinned.

Not here: OpenMoji (CC-BY-SA), Twemoji, Streamline and Game Icons (CC-BY), Tux Paint's stamps (GPL).
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

DRAWING_SIZE = 72  # pixels of a rasterised drawing
ICON_SETS = {  # npm package -> sha256 of its tarball, category of its icons
    "@iconify-json/noto@1.2.9": ("3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad", "emoji"),
    "@iconify-json/noto-v1@1.2.5": ("2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37", "emoji"),
    "@iconify-json/fluent-emoji-flat@1.2.6": (
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175", "emoji",
    ),
    "@iconify-json/fluent-emoji@1.2.7": ("8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b", "emoji"),
    "@iconify-json/fxemoji@1.2.2": ("f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef", "emoji"),
    "@iconify-json/icon-park@1.2.4": ("c1a25212a31602aca93c3fa6f6b3288e89b9d7811afc132dfd78506e9d586b6f", "icon"),
    "@iconify-json/flat-color-icons@1.2.3": (
        "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786", "icon",
    ),
    "@iconify-json/fluent-color@1.2.21": ("fa2ddaaac7a2a7b902659cea1b5b8c03017ce2ae56295138876b86a36177dfbe", "icon"),
}  # fmt: skip
CLIPART = {  # Debian package -> file, sha256; the pictures, and their titles and keywords
    "openclipart-png": (
        "openclipart-png_1%3a0.18+dfsg-19_all.deb",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    ),
    "openclipart-svg": (
        "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    ),
}
STARS = 60  # of 1,378 near-identical ones
TONES = re.compile(r"-(medium-light|medium-dark|light|medium|dark)(-skin-tone.*)?$|-default$")
ICON_SIZE = re.compile(r"-(12|16|20|24|28|32|48)$")
DIGITS = re.compile(r"\d+")
NO_KINDS = {"unsorted", "hash"}
COMMON_TITLE = 3  # a title that more pictures bear ("Etiquette Icons") names none of them


@dataclass(frozen=True)
class Drawing:
    """What is known of a drawing: its name in words, the words that say what kind of thing it is, and its package."""

    name: str
    keywords: tuple[str, ...]
    package: str


def fetch(command: list[str], path: Path, sha256: str) -> Path:
    """A package's file, downloaded once by its ordinary client and checked against its hash."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, cwd=path.parent, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path}: sha256 {found}, needed {sha256}: delete it and run again")
    return path


def drawings(work: Path) -> tuple[list[Drawing], np.ndarray]:
    """All drawings and their pixels, premultiplied RGBA uint8 [n, 4, DRAWING_SIZE, DRAWING_SIZE]; cached in `work`."""
    names, pixels = work / "drawings.json", work / "drawings.npy"
    if not (names.exists() and pixels.exists()):
        found = [item for item in rasterised(work / "downloads", DRAWING_SIZE) if _visible(item[1])]
        np.save(pixels.with_suffix(".tmp.npy"), np.stack([rgba for _, rgba in found]))
        pixels.with_suffix(".tmp.npy").replace(pixels)
        table = [[drawing.name, drawing.keywords, drawing.package] for drawing, _ in found]
        names.write_text(json.dumps(table, indent=0))
    table = json.loads(names.read_text(encoding="utf-8"))
    return [Drawing(name, tuple(keywords), package) for name, keywords, package in table], np.load(pixels, "r")


def rasterised(folder: Path, size: int) -> Iterator[tuple[Drawing, np.ndarray]]:
    """All drawings in their order, faint ones too, each with its pixels: premultiplied RGBA uint8 [4, size, size]."""
    yield from _icons(folder, size)
    yield from _clipart(folder, size)


def words(text: str) -> str:
    """A name as words: no numbers, hyphens or underscores."""
    return " ".join(DIGITS.sub(" ", re.sub(r"[^A-Za-z0-9' ]+", " ", text)).split())


def _icons(folder: Path, pixels: int) -> Iterator[tuple[Drawing, np.ndarray]]:
    spelled: dict[str, str] = {}
    for package, (sha256, category) in ICON_SETS.items():
        tarball = folder / (package.lstrip("@").replace("/", "-").replace("@", "-") + ".tgz")
        fetch(["npm", "pack", "--silent", package], tarball, sha256)
        with tarfile.open(tarball) as tar:
            table = json.load(tar.extractfile("package/icons.json"))
        size = {"width": table.get("width", 16), "height": table.get("height", 16)}
        taken = set()
        for key, icon in sorted(table["icons"].items()):
            name = words(ICON_SIZE.sub("", TONES.sub("", key)))
            if "fxemoji" in package:  # its names lack blanks: only those that another set spells
                name = spelled.get(name.replace(" ", ""), "")
            if name and name not in taken:
                taken.add(name)
                spelled.setdefault(name.replace(" ", ""), name)
                yield Drawing(name, (category,), package), _rasterise(size | icon, pixels)


def _rasterise(icon: dict, size: int) -> np.ndarray:
    """An icon as premultiplied RGBA, uint8 [4, size, size]."""
    import resvg_py  # only needed where drawings are made, which the tests do not

    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon['width']} {icon['height']}"
    body = icon["body"].replace("currentColor", "#333")
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f'<svg {namespaces} viewBox="{box}">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    return _square(Image.open(io.BytesIO(bytes(png))), size)


def _square(image: Image.Image, side: int) -> np.ndarray:
    """An image fitted into the square, its colours multiplied by its opacity; uint8 [4, side, side]."""
    image = image.convert("RGBA")
    image.thumbnail((side, side), Image.Resampling.BOX)
    scale = side / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size])
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    rgba = np.asarray(canvas, np.float32).copy()
    rgba[..., :3] *= rgba[..., 3:] / 255
    return rgba.round().astype(np.uint8).transpose(2, 0, 1)


def _visible(rgba: np.ndarray) -> bool:
    """Whether there is enough of it to be seen."""
    return float(rgba[3].mean()) > 10


def _clipart(folder: Path, pixels: int) -> Iterator[tuple[Drawing, np.ndarray]]:
    roots = {}
    for package, (file, sha256) in CLIPART.items():
        archive = fetch(["apt-get", "download", package], folder / file, sha256)
        roots[package] = folder / package
        if not roots[package].exists():
            subprocess.run(["dpkg-deb", "-x", archive, roots[package]], check=True)
    png = roots["openclipart-png"] / "usr/share/openclipart/png"
    svg = roots["openclipart-svg"] / "usr/share/openclipart/svg"
    paths = sorted(path.relative_to(png) for path in png.rglob("*.png"))
    stars = [path for path in paths if "stars" in path.parts]
    paths = sorted({path for path in paths if "stars" not in path.parts} | set(stars[:: len(stars) // STARS]))
    titles = {path: _metadata(svg / path.with_suffix(".svg")) for path in paths}
    common = Counter(title for title, _ in titles.values())
    for path in paths:
        title, keywords = titles[path]
        name = words(title) if common[title] <= COMMON_TITLE else ""
        name = name if len(name) > 2 else words(path.stem)
        kinds = [words(part) for part in reversed(path.parts[:-1])]
        keywords = tuple(
            dict.fromkeys(word for word in [*kinds, *keywords] if 2 < len(word) < 25 and word not in NO_KINDS)
        )
        try:
            rgba = _square(Image.open(png / path), pixels)
        except (OSError, Image.DecompressionBombError):  # a few files are broken, or too large to be worth opening
            continue
        if name:
            yield Drawing(name, keywords, "openclipart"), rgba


def _metadata(path: Path) -> tuple[str, list[str]]:
    """Title and keywords of a picture; empty where it has none."""
    if not path.exists():
        return "", []
    text = path.read_text("utf-8", errors="ignore")
    title = re.search(r"<dc:title[^>]*>([^<]*)</dc:title>", text)
    keywords = re.findall(r"<rdf:li[^>]*>([^<]+)</rdf:li>", text)
    return (title[1].strip() if title else "", [words(keyword).lower() for keyword in keywords])
