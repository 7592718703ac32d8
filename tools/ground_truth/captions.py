"""Captions as people write them: name, article, plural, kind of thing, style, ground; 3 to 15 words.

A caption says of a scene what the writer happened to mention. All captions of all roles come from this one grammar.
"""

import numpy as np

from .grounds import KINDS
from .scenes import Scene
from .sources import Drawing

LONGEST = 15
MENTION_GROUND, MENTION_COLOURS, MENTION_KIND, MENTION_SECOND, STYLED = 0.4, 0.7, 0.3, 0.6, 0.6
PREFIXES = (
    "a drawing of {a}", "an illustration of {a}", "a picture of {a}", "a sketch of {a}", "a painting of {a}",
    "clip art of {a}", "an icon of {a}", "a cartoon of {a}", "cute {name}", "small {name}", "simple {name}",
    "a big {name}", "the {name}", "a sticker of {a}", "vector image of {a}", "my favourite {name}",
    "one single {name}", "a colourful {name}", "free {name}", "logo with {a}", "image of {plural}", "this is {a}",
    "{name} for children", "an old {name}",
)  # fmt: skip
SUFFIXES = (
    "{name} clip art", "{name} icon", "{name}, vector illustration", "{name} sticker", "{name} drawing",
    "{name} symbol", "{name} cartoon", "{name} picture", "{name} stock image", "{name} logo design", "{name} graphic",
    "{name} - free download",
)  # fmt: skip
BARE = ("{a}", "{name}", "{plural}", "the {name}", "some {plural}")
TAILS = (
    "free download",
    "public domain",
    "high quality",
    "for print",
    "in color",
    "close up",
    "flat design",
    "isolated",
)


def article(name: str) -> str:
    """A name with its indefinite article."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """A name in the plural, by rule."""
    if name.endswith(("s", "x", "ch", "sh")):
        return name if name.endswith("s") else name + "es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def fill(template: str, name: str) -> str:
    """A template's {name}, {a} (with article) and {plural}."""
    return template.format(name=name, a=article(name), plural=plural(name))


def pick(rng: np.random.Generator, items: tuple[str, ...]) -> str:
    return items[int(rng.integers(len(items)))]


def subject(name: str, rng: np.random.Generator) -> str:
    """The name, styled or bare."""
    if rng.random() < STYLED:
        return fill(pick(rng, PREFIXES if rng.random() < 0.6 else SUFFIXES), name)
    return fill(pick(rng, BARE), name)


def surroundings(scene: Scene, known: list[Drawing], rng: np.random.Generator) -> list[str]:
    """What a caption adds: the second drawing, the ground or its colours, in this order."""
    added, (_, phrases) = [], KINDS[scene.ground]
    if scene.second >= 0 and rng.random() < MENTION_SECOND:
        added.append(f"{pick(rng, ('with', 'and', 'next to'))} {article(known[scene.second].name.lower())}")
    if scene.colours and rng.random() < MENTION_COLOURS:
        added.append(f"{pick(rng, ('on', 'with background', 'in'))} {' and '.join(scene.colours)}")
    elif phrases and rng.random() < MENTION_GROUND:
        added.append(pick(rng, phrases))
    return added


def caption(scene: Scene, known: list[Drawing], rng: np.random.Generator) -> str:
    """One caption of a scene, 3 to 15 words."""
    drawing = known[scene.drawing]
    name = " ".join(drawing.name.split()[:6])
    name = name if rng.random() < 0.3 else name.lower()
    parts = [subject(name, rng), *surroundings(scene, known, rng)]
    text = " ".join(parts)
    if drawing.keywords and rng.random() < MENTION_KIND:
        kind = pick(rng, drawing.keywords)
        text = f"{text}, {kind}" if rng.random() < 0.7 else f"{kind}: {text}"
    while len(text.split()) < 3:
        text = f"{text}, {pick(rng, TAILS)}" if rng.random() < 0.5 else fill(pick(rng, PREFIXES), text)
    return " ".join(text.split()[:LONGEST])


def reworded(text: str, rng: np.random.Generator) -> str:
    """A caption with a word more, less or other: a near duplicate that keeps most of its words."""
    words = text.split()
    kind = int(rng.integers(4))
    if kind == 0 and len(words) > 3:
        del words[int(rng.integers(len(words)))]
    elif kind == 1:
        words = [*words[: LONGEST - 2], *pick(rng, TAILS).split()]
    elif kind == 2:
        words = [*pick(rng, ("a nice", "small", "very", "another", "just", "new", "old")).split(), *words]
    else:
        words[int(rng.integers(len(words)))] = pick(rng, ("nice", "thing", "little", "red", "happy", "image"))
    return " ".join(words[:LONGEST])
