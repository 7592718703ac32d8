"""Whether a text file that a folder holds is a list of captions, by what stands in it.

Captions describe, one a line. Documents are wrapped, have headings or address their reader; vocabularies have a word
a line, requirements versions, logs times and numbers. The file's name hardly counts. What is unclear is taken for
captions.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

FEW = 20  # lines: fewer than a dataset has
CAPITALS = "a document: its name is in capitals"
LIST = 5  # lines of one word: more than happen to be
WRAPPED = (45, 132)  # characters of a line that a document is wrapped to
ADDRESS = re.compile(
    r"\b(you|your|we|our|please|must|shall|should|how to|note that|copyright|licen[cs]ed?|install|download(ed)?"
    r"|cit(e|ation)|this (folder|file|data ?set|directory|project|repository|package|software|archive|release|model"
    r"|work|document|script))\b|https?://|www\.|\S@\S+\.\w|©|\(c\) \d{4}",
    re.IGNORECASE,
)
REQUIREMENT = re.compile(r"^\s*([\w.\-]+(\[[\w, \-]+\])?\s*(===?|>=|<=|~=|!=|>|<)\s*[\w.*]|-{1,2}\w|[\w.\-]+ ?@ ?\S+:)")
LOG = re.compile(
    r"^\W{0,2}\d{4}-\d\d-\d\d|^\W{0,2}\d{1,2}:\d\d:\d\d|\b(INFO|WARN(ING)?|ERROR|DEBUG|TRACE|FATAL|CRITICAL)\b|^Traceback"
    r"|^\w+(Error|Exception|Warning)\b"
)
SETTING = re.compile(r"^\s*[\w.\-/]+( [\w.\-/]+){0,2}\s*[:=]\s*\S|^\s*[\w.\-]+\s*[:=]$")
HEADING = re.compile(
    r"^\s*(#{1,6} |[=\-~*_#^]{3,}\s*$|```|\[[\w .\-]+\]$|</?(html|head|body|div|xml|p)\b|<[!?]|/\*|//)"
)
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{3}"
)  # scripts without blanks
ID = re.compile(r"\s*[0-9a-fA-F-]{16,}\s*")
SENTENCE = re.compile(r"[.!?][\")']? +[A-Z]")
SIGNS = set("{}[]()<>=;|\\/$&_#*+@^~`")

Rule = Callable[[Sequence[str]], bool]


def no_captions(name: str, head: str) -> str | None:
    """Why a text with this beginning is no list of captions; None where it may be one."""
    raw = head.split("\n")
    raw = [line.rstrip() for line in (raw[:-1] if len(raw) > 2 else raw)]  # the last may be cut
    lines = [line for line in raw if line.strip()]
    if not lines:
        return None
    stem, _, end = name.rpartition(".")
    if len(lines) < FEW and sum(map(str.isalpha, stem)) > 3 and stem.isupper() and not end.isupper():
        return CAPITALS
    for what, rule in RULES.items():
        if rule(lines):
            return what
    return "a document: prose in paragraphs" if _wrapped(raw, lines) or _paragraphs(raw, lines) else None


def _share(lines: Sequence[str], pattern: re.Pattern[str]) -> float:
    return sum(pattern.search(line) is not None for line in lines) / len(lines)


def _words(lines: Sequence[str]) -> bool:
    return len(lines) >= LIST and sum(map(_one_word, lines)) >= 0.9 * len(lines)


def _one_word(line: str) -> bool:
    return len(line.split()) == 1 and not UNSPACED.search(line)


def _fragments(lines: Sequence[str]) -> bool:
    words = [word for line in lines for word in line.split()]
    return len(lines) > 9 and sum(map(len, words)) / len(words) < 2.5 and not any(map(UNSPACED.search, lines))


def _requirements(lines: Sequence[str]) -> bool:
    named = sum(bool(REQUIREMENT.search(line)) for line in lines)
    alike = sum(bool(REQUIREMENT.search(line)) or _one_word(line) or line.lstrip().startswith("#") for line in lines)
    return named > 0 and alike >= 0.9 * len(lines)


def _numbers(lines: Sequence[str]) -> bool:
    words = [word for line in lines for word in line.split()]
    return len(lines) > 2 and sum(any(map(str.isdigit, word)) for word in words) >= 0.5 * len(words)


def _code(lines: Sequence[str]) -> bool:
    text = "".join(lines)
    return len(lines) > 2 and sum(sign in SIGNS for sign in text) > 0.08 * len(text)


def _ids(lines: Sequence[str]) -> bool:
    return all(map(ID.fullmatch, lines))


RULES: dict[str, Rule] = {
    "a list of ids": _ids,
    "a list of requirements": _requirements,
    "a log": lambda lines: _share(lines, LOG) >= 0.5,
    "a list of words: one a line": _words,
    "a list of words: fragments": _fragments,
    "numbers": _numbers,
    "settings: a name and a value a line": lambda lines: len(lines) > 2 and _share(lines, SETTING) >= 0.6,
    "a document: headings": lambda lines: len(lines) > 1 and _share(lines, HEADING) >= 0.1,
    "code or markup": _code,
    "a document: it addresses its reader": lambda lines: _share(lines, ADDRESS) >= 0.3,
}


def _wrapped(raw: Sequence[str], lines: Sequence[str]) -> bool:
    """Whether sentences go on from line to line, all of about one length."""
    pairs = [(a, b) for a, b in pairwise(raw) if a.strip() and b.strip()]
    going = [len(a) for a, b in pairs if len(a) >= WRAPPED[0] and a[-1] not in ".!?" and b.strip()[0].islower()]
    if len(going) < 2 or max(going) > WRAPPED[1] or max(going) - min(going) > 30:
        return False
    sentences = any(SENTENCE.search(line) for line in lines)
    return len(going) >= 0.3 * len(pairs) and (sentences or len(lines) < len(raw) - 1)


def _paragraphs(raw: Sequence[str], lines: Sequence[str]) -> bool:
    """Whether blank lines divide lines of several sentences."""
    blanks = sum(not line.strip() for line in raw[1:-1])
    return len(lines) > 1 and blanks >= 0.5 * (len(lines) - 1) and _share(lines, SENTENCE) >= 0.5
