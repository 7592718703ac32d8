"""What a report says in plain words. *Flagged is not memorized.*"""

import polars as pl

from scanner.report.contents import Contents, score_columns

MEANING = (
    (
        "Flagged is not memorized",
        "A flagged caption is one whose score stands out: at the first denoising step it takes hold of the picture to "
        "an unusual degree. Captions whose training images the model has memorized tend to do so, and some others do "
        "too. It is not proof: no image was generated to flag it, and no training image was compared.",
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

METHOD = (
    "For each unique caption the text encoder and the first denoising steps were run from a few starting noises; no "
    "image was generated. There a memorized caption already takes hold of the picture: guidance overestimates it, and "
    "the estimate is the same whatever the noise (Kim, Kim and Lee, How Diffusion Models Memorize, arXiv 2509.25705). "
    "The score measures that, higher is more, and the captions that stand out are flagged. Those whose first estimates "
    "point at the same image are put together as one finding."
)
SETTINGS = (  # of the facts
    "Computed by", "Seeds", "Steps", "Timesteps", "Guidance scale", "Prior", "Reference", "Base model",
)  # fmt: skip
HASHES = ("Scan", "Model fingerprint", "Captions fingerprint")
BY = "Run by"
RADII = "overestimation_v1"  # in data radii

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


def guide(contents: Contents) -> list[tuple[str, str]]:
    """The box on how to read a report: (title, text)."""
    said = [("Method", METHOD), ("What a score means here", of_the_scale(contents))]
    settings = [f"{name.lower()} {contents.facts[name]}" for name in SETTINGS if name in contents.facts]
    hashes = [f"{name.lower()} {contents.facts[name]}" for name in HASHES if name in contents.facts]
    said += [("Settings", "; ".join(settings)), ("Hashes", "; ".join(hashes)), ("Run by", contents.facts.get(BY, ""))]
    return [(title, text) for title, text in said if text]


def _all(prompts: pl.LazyFrame, score: str) -> pl.Series:
    return prompts.select(score).collect(engine="streaming")[score]


def of_the_scale(contents: Contents) -> str:
    """The lowest flagged score among all of this scan: how many lie below it, and how far its estimate goes."""
    has_score = pl.col("rank").is_not_null(), pl.col(contents.score).is_not_null()
    scored, lowest = contents.ranked.filter(*has_score), contents.prompts.filter(*has_score).tail(1)
    if lowest.is_empty():
        return ""
    score, all_scores = lowest[contents.score][0], _all(scored, contents.score)
    below = (contents.scored - lowest["rank"][0]) / contents.scored
    said = (
        f"The lowest flagged caption has {number(score)} by {contents.score}: {below:.2%} of the scored captions lie "
        f"below it, and their median is {number(_median(all_scores))}."
    )
    if RADII not in score_columns(lowest) or lowest[RADII][0] is None:
        return said
    own, usual = number(lowest[RADII][0], 3), number(_median(_all(scored, RADII)), 3)
    return (
        f"{said} Guidance moves its first estimate of the image by {own} data radii (the usual distance of an image "
        f"from the mean of all), that of the median caption by {usual}."
    )


def _median(values: pl.Series) -> float:
    return float(values.median())  # type: ignore[arg-type]


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
    return f"{stated} {CALIBRATED}" if "p_value" in contents.ranked.collect_schema() else stated
