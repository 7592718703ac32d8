"""Which captions the diffusion model is shown, with which pictures and how often, and which it never sees.

Drawings are split by chance: one part makes the pool on which text encoder and VAE learn, the other the diffusion
model's pictures. Its captions come from one random permutation and one grammar: nothing but duplication sets the roles
apart.

- `fixed`: one picture, shown `duplicates` times an epoch;
- `varied`: as frequent, but another picture each time: known captions that should not be memorized;
- `shared`: a picture that two captions share, each shown once;
- `template`: captions whose pictures are one picture but for a corner;
- `retrieval`: captions that differ in a word and share one picture;
- `unseen`: never shown, though its drawing was, otherwise; `held_out`: nor any drawing of that name;
- `edited`: a fixed caption reworded, never shown; `composed`: two names joined, never shown.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from . import captions, scenes
from .scenes import Scene
from .sources import Drawing


@dataclass(frozen=True)
class Plan:
    """How many captions of each role: duplicates -> captions; groups x members x times for the two local kinds."""

    fixed: dict[int, int] = field(
        default_factory=lambda: {
            64: 30, 48: 30, 32: 60, 24: 80, 16: 120, 12: 70, 8: 70, 6: 50, 4: 60, 3: 40, 2: 80, 1: 3200,
        }
    )  # fmt: skip
    varied: dict[int, int] = field(default_factory=lambda: {64: 8, 24: 30, 16: 30, 8: 40, 4: 80})
    shared: int = 150
    template: tuple[int, int, int] = (12, 20, 2)
    retrieval: tuple[int, int, int] = (14, 8, 4)
    unseen: int = 900
    held_out: int = 300
    edited: int = 400
    composed: int = 600  # a third are worded as templates are: the wording must not tell


@dataclass(frozen=True)
class Entry:
    """A caption: its role, and the pictures of its rows (indices of `Builder.scenes`)."""

    role: str
    rows: tuple[int, ...]
    group: int


class Builder:
    """Draws scenes and captions that were not taken yet."""

    def __init__(self, known: list[Drawing], usable: np.ndarray, taken: set[str], rng: np.random.Generator):
        self.known, self.usable, self.taken, self.rng = known, usable, taken, rng
        self.scenes: list[Scene] = []
        self.entries: dict[str, Entry] = {}

    def caption(self, scene: Scene) -> str:
        """A caption of the scene that nobody bears yet."""
        while (text := captions.caption(scene, self.known, self.rng)).lower() in self.taken:
            pass
        return text

    def show(self, scene: Scene) -> int:
        self.scenes.append(scene)
        return len(self.scenes) - 1

    def add(self, text: str, role: str, rows: tuple[int, ...], group: int) -> None:
        self.taken.add(text.lower())
        self.entries[text] = Entry(role, rows, group)


def split(known: list[Drawing], rng: np.random.Generator, pool_share: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Drawings of the pool and of the diffusion model, by chance; shuffled."""
    order = rng.permutation(len(known))
    return np.split(order, [int(pool_share * len(known))])


def plan_rows(
    known: list[Drawing], usable: np.ndarray, taken: set[str], plan: Plan, rng: np.random.Generator
) -> Builder:
    """All captions of all roles. `taken`: captions, in lower case, that the pool uses."""
    names = defaultdict(list)
    for drawing in usable:
        names[known[drawing].name.lower()].append(int(drawing))
    lone = [drawings[0] for drawings in names.values() if len(drawings) == 1]
    held_out = {int(drawing) for drawing in rng.permutation(lone)[: plan.held_out]}
    shown = np.array([drawing for drawing in usable if int(drawing) not in held_out])
    builder = Builder(known, shown, set(taken), rng)
    fresh = _endless(shown, rng)
    _fixed(builder, fresh, plan)
    _varied(builder, fresh, plan, names)
    _shared(builder, fresh, plan)
    _template(builder, fresh, plan)
    _retrieval(builder, fresh, plan)
    for role, source, n in (("unseen", fresh, plan.unseen), ("held_out", iter(sorted(held_out)), plan.held_out)):
        for group in range(n):
            scene = scenes.new_scene(next(source), shown, rng)
            builder.add(builder.caption(scene), role, (), 10**6 * (1 + (role == "unseen")) + group)
    _edited(builder, plan)
    _composed(builder, fresh, plan)
    return builder


def _endless(shown: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Every drawing once, in random order, then every drawing once again."""
    while True:
        yield from (int(drawing) for drawing in rng.permutation(shown))


def _fixed(builder: Builder, fresh: Iterator[int], plan: Plan) -> None:
    for times, n in plan.fixed.items():
        for _ in range(n):
            scene = scenes.new_scene(next(fresh), builder.usable, builder.rng)
            picture = builder.show(scene)
            builder.add(builder.caption(scene), "fixed", (picture,) * times, picture)


def _varied(builder: Builder, fresh: Iterator[int], plan: Plan, names: dict[str, list[int]]) -> None:
    for times, n in plan.varied.items():
        for _ in range(n):
            scene = scenes.new_scene(next(fresh), builder.usable, builder.rng)
            same = names[builder.known[scene.drawing].name.lower()]
            others = [
                replace(scenes.again(scene, builder.rng), drawing=int(builder.rng.choice(same))) for _ in range(times)
            ]
            pictures = tuple(builder.show(other) for other in others)
            builder.add(builder.caption(scene), "varied", pictures, pictures[0])


def _shared(builder: Builder, fresh: Iterator[int], plan: Plan) -> None:
    for _ in range(plan.shared):
        scene = scenes.new_scene(next(fresh), builder.usable, builder.rng)
        picture = builder.show(scene)
        for _ in range(2):
            builder.add(builder.caption(scene), "shared", (picture,), picture)


def _template(builder: Builder, fresh: Iterator[int], plan: Plan) -> None:
    groups, members, times = plan.template
    for _ in range(groups):
        scene = scenes.new_scene(next(fresh), builder.usable, builder.rng)
        group = len(builder.scenes)
        for _ in range(members):
            other = replace(scene, second=int(builder.rng.choice(builder.usable)))
            picture = builder.show(other)
            words = captions.article(builder.known[other.second].name.lower())
            name = builder.known[scene.drawing].name.lower()
            text = f"{captions.article(name)} with {words}"
            if text.lower() not in builder.taken and len(text.split()) <= captions.LONGEST:
                builder.add(text, "template", (picture,) * times, group)


def _retrieval(builder: Builder, fresh: Iterator[int], plan: Plan) -> None:
    groups, members, times = plan.retrieval
    for _ in range(groups):
        scene = scenes.new_scene(next(fresh), builder.usable, builder.rng)
        picture = builder.show(scene)
        first = builder.caption(scene)
        builder.add(first, "retrieval", (picture,) * times, picture)
        while sum(entry.group == picture for entry in builder.entries.values()) < members:
            text = captions.reworded(first, builder.rng)
            if text.lower() not in builder.taken:
                builder.add(text, "retrieval", (picture,) * times, picture)


def _edited(builder: Builder, plan: Plan) -> None:
    sources = [
        (text, entry) for text, entry in builder.entries.items() if entry.role == "fixed" and len(entry.rows) > 1
    ]
    done = 0
    while done < plan.edited:
        text, entry = sources[int(builder.rng.integers(len(sources)))]
        text = captions.reworded(text, builder.rng)
        if text.lower() not in builder.taken and len(text.split()) >= 3:
            builder.add(text, "edited", (), entry.group)
            done += 1


def _composed(builder: Builder, fresh: Iterator[int], plan: Plan) -> None:
    for group in range(plan.composed):
        while True:
            first, second = (captions.article(builder.known[next(fresh)].name.lower()) for _ in range(2))
            text = " ".join(f"{first} {captions.pick(builder.rng, ('and', 'with', 'next to'))} {second}".split()[:15])
            if text.lower() not in builder.taken:
                break
        builder.add(text, "composed", (), 3 * 10**6 + group)
