"""A night in one line, and its evidence in sentences: no more than the rule and the numbers can say.

Here *memorized* is never said of a flag.
"""

from scanner.audit.evidence import UNLIKELY
from scanner.audit.summary import Evidence, Summary

MANY = 0.1  # of the scored prompts, and more than FEW: these do not stand out
FEW = 10


def headline(summary: Summary) -> str:
    """What was found, in one line: a ranking as what it is, a decision against what chance explains."""
    weighed = summary.evidence
    if weighed is None or (not summary.rule.decides and summary.rule.threshold is None):
        return _ranking(summary)
    return _decision(summary, weighed) + _true(weighed)


def _ranking(summary: Summary) -> str:
    count, scored = summary.flagged, summary.scored
    if count == 0:
        limit = summary.rule.threshold
        return "No caption is flagged" if limit is None else f"No caption reaches the threshold {limit:.4g}"
    share = count / max(1, scored)
    of = f"{percent(share)} of {scored:,} scored"
    if share > 0.5:
        return f"{count:,} of {scored:,} captions ({percent(share)}): most of the dataset, which cannot all stand out"
    if summary.rule.threshold is not None:
        return f"{_captions(count)} from the threshold {summary.rule.threshold:.4g} up, to be checked ({of})"
    if share > MANY and count > FEW:
        return f"The {count:,} that rank highest, to be checked ({of}): too many to stand out"
    return f"The {count:,} that stand{'s' if count == 1 else ''} out most, to be checked ({of})"


def _decision(summary: Summary, weighed: Evidence) -> str:
    count, expected = summary.flagged, amount(weighed.expected)
    if summary.rule.fdr is not None:
        if count == 0:
            return f"No caption is flagged at a false discovery rate of {summary.rule.fdr:g}"
        said = f"{_captions(count)} flagged, up to {expected} of them expected to be false alarms"
        return said if is_evidence(weighed) else f"{said}: no evidence beyond chance"
    said = f"{_captions(count) if count else 'No caption'} flagged, {expected} expected by chance"
    if count == 0:
        return said
    return said + (
        ": more than chance explains, to be checked" if is_evidence(weighed) else ": no evidence of memorization"
    )


def _true(weighed: Evidence) -> str:
    if weighed.true_share is None:
        return ""
    most = "at most " if weighed.tpr is None else "about "
    return f"; {most}{percent(weighed.true_share)} of them true at a base rate of {weighed.base_rate:g}"


def of_the_evidence(summary: Summary) -> list[str]:
    """What a reader must know of the flags' evidence, in sentences."""
    weighed, m, rule = summary.evidence, summary.scored, summary.rule
    if weighed is None:
        return []
    said = []
    expected, chance = amount(weighed.expected), weighed.chance
    if rule.fdr is not None:
        if summary.flagged and chance is not None:
            said.append(f"were all {m:,} prompts benign, as small a q-value would come by chance {_often(weighed)}")
    elif chance is None:
        said.append(
            f"of {m:,} prompts {expected} would score as high as the lowest flagged one were all of them benign"
        )
    else:
        at = f"at fpr {rule.fpr:g}" if rule.fpr is not None else f"from {rule.threshold:.4g} up"
        said.append(
            f"of {m:,} prompts up to {expected} would be flagged {at} were all of them benign, and {summary.flagged:,} "
            + ("is" if summary.flagged == 1 else "are")
            + (f"; as many or more come by chance {_often(weighed)}" if summary.flagged else "")
        )
    if weighed.true_share is not None:
        said.append(_of_the_prior(weighed))
    return said


def _often(weighed: Evidence) -> str:
    assert weighed.chance is not None
    return f"in {percent(weighed.chance)} of such datasets: {'' if is_evidence(weighed) else 'no '}evidence"


def _of_the_prior(weighed: Evidence) -> str:
    assert weighed.true_share is not None
    share, rate = percent(weighed.true_share), f"a false positive rate of {weighed.rate:.2g}"
    if weighed.tpr is None:
        return (
            f"at a base rate of {weighed.base_rate:g} and {rate} at most {share} of the flags are true: as if the rule "
            "found all that is memorized, which no score does (--tpr says how much it finds)"
        )
    return (
        f"at a base rate of {weighed.base_rate:g}, {rate} and a true positive rate of {weighed.tpr:g} about {share} of "
        "the flags are true"
    )


def is_evidence(weighed: Evidence) -> bool:
    """Whether chance alone seldom explains the flags."""
    return weighed.chance is not None and weighed.chance <= UNLIKELY


def percent(share: float) -> str:
    """A share in percent, to three digits; what rounds to nothing is said to be less."""
    if 0 <= share < 0.00001:
        return "less than 0.001 %"
    return f"{100 * share:.3g} %"


def amount(expected: float) -> str:
    """An expected number: whole where it is large."""
    return f"{expected:,.0f}" if expected >= 10 else f"{expected:.2g}"


def _captions(count: int) -> str:
    return f"{count:,} {'caption' if count == 1 else 'captions'}"
