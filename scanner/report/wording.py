"""What a report says in plain words. *Flagged is not memorized.*"""

from scanner.report.contents import Contents

MEANING = (
    (
        "Flagged is not memorized",
        "A flagged caption is one whose score stands out: at the first denoising step it takes hold of the picture to "
        "an unusual degree. Captions whose training images the model has memorized tend to do so, and some others do "
        "too. It is not proof. No image was generated for this report, and no training image was compared.",
    ),
    (
        "Some flags are expected to be wrong",
        "Famous works, logos and exact product texts score high; some of them are true positives, some are not. "
        "Generate images of a flagged caption over several seeds and compare them with the training images before you "
        "act on it.",
    ),
    (
        "A caption without a flag is not cleared",
        "The score can miss memorized captions. It holds for this model, precision, set of seeds and settings; "
        "thresholds do not carry over to others.",
    ),
)

RANKING = (
    "This is a ranking. It says which captions stand out most, and nothing about how many of them are false alarms: "
    "some caption always ranks first."
)
CALIBRATED = (
    "The p-value is the chance that a benign caption like the null's scores this high; the q-value is the share of "
    "false alarms to expect among the captions with this q-value or a lower one."
)
RATED = (
    "The threshold is kept from a day when null captions told its rate of false alarms: a benign caption like those "
    "scores as high with no greater probability."
)
REDACTED = (
    "Redacted: captions are replaced by their id and their length, and folders are left out. The id is a hash of the "
    "caption, so whoever guesses a caption can confirm the guess."
)


def number(value: float | None, digits: int = 4) -> str:
    """A count whole, a score to so many significant digits, nothing for none: as the page's script writes them."""
    if value is None:
        return ""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if value != 0 and abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:#.{digits}g}"


def of_the_numbers(contents: Contents) -> str:
    """What may be concluded from the scores: a ranking, or a calibrated statement."""
    if contents.null is None:
        return RATED if contents.rated else RANKING
    stated = f"Compared with {len(contents.null.scores):,} null captions from {contents.null.source}."
    return f"{stated} {CALIBRATED}" if "p_value" in contents.ranked.columns else stated
