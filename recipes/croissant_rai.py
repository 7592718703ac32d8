"""What a scan found, in a dataset's Croissant card: the fields of its RAI extension (responsible AI).

overscan evidence report --store store --out evidence.json && python croissant_rai.py croissant.json evidence.json

Adds to what the card says already; run again for the same scan, it changes nothing. Check with `mlcroissant validate`.
"""

import json
import sys
from pathlib import Path

RAI = "http://mlcommons.org/croissant/RAI/"


def added(card: dict, evidence: dict) -> dict:
    """The card with the scan's sentences in `dataPreprocessingProtocol` and `dataLimitations`."""
    predicate = evidence["predicate"]
    result = predicate["result"]
    scanned = (
        f"{result['scored']:,} unique captions were scanned for memorization by a text-to-image model (Overscan, "
        f"{predicate['method']['paper']}; scan {result['scan_id']}, {result['date']}): {result['headline']}; "
        f"{result['flagged_rows']:,} rows bear a flagged caption."
    )
    limits = [f"Of the scan for memorization: {sentence}." for sentence in predicate["limits"]]
    context = card["@context"] | {"rai": RAI} if isinstance(card["@context"], dict) else card["@context"]
    return card | {
        "@context": context,
        "conformsTo": united(card.get("conformsTo"), [f"{RAI}1.0"]),
        "rai:dataPreprocessingProtocol": united(card.get("rai:dataPreprocessingProtocol"), [scanned]),
        "rai:dataLimitations": united(card.get("rai:dataLimitations"), limits),
    }


def united(held: str | list[str] | None, more: list[str]) -> list[str]:
    """One value or several, and more, each once."""
    before = [held] if isinstance(held, str) else held or []
    return list(dict.fromkeys([*before, *more]))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    card = added(json.loads(path.read_text()), json.loads(Path(sys.argv[2]).read_text()))
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
