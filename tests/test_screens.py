"""Which first pass is chosen, by a table of what first passes keep."""

import polars as pl
import pytest

from scanner import ScannerError
from scanner.audit import screens
from scanner.audit.screens import Choice, choose, price, read
from scanner.diffusion.scores import SCORES
from scanner.errors import InputError

NORM = "text_noise_norm_v1"
ROWS = [
    (1.0, "first", NORM, 0.1, 0.9), (1.0, "first", NORM, 0.2, 0.991),
    (1.0, "801", "overestimation_prior_v2", 0.05, 0.97), (1.0, "801", "overestimation_prior_v2", 0.1, 0.99),
    (0.5, "601", "low_noise_norm_v1", 0.2, 0.96), (0.5, "601", "low_noise_norm_v1", 0.5, 0.985),
]  # fmt: skip
TABLE = pl.DataFrame(ROWS, schema=screens.SCHEMA, orient="row")


def test_the_cheapest_first_pass_that_keeps_enough_is_chosen():
    assert price(0.5, 0.1, 0.02, 4) == pytest.approx(0.25 + 4 * (0.1 + 0.9 * 0.02))
    found = choose(TABLE, 0.99, 1.0, 0.02, 4)
    assert found == Choice(1.0, (801,), "overestimation_prior_v2", 0.1, 0.99, pytest.approx(1 + 4 * 0.118))
    assert choose(TABLE, 0.95, 1.0, 0.0, 4).share == 0.05
    half = choose(TABLE, 0.95, 0.5, 0.0, 2)
    assert (half.told, half.score, half.price) == ((601,), "low_noise_norm_v1", pytest.approx(0.25 + 2 * 0.2))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((0.995, 1.0, 0.0, 4), "no first pass keeps 0.995 of what all passes find; text_noise_norm_v1 keeps 0.991"),
        (
            (0.9, 0.25, 0.0, 4),
            "latents have 0.25 of the model's side, and what such a pass keeps is not known, only of",
        ),
        ((0.99, 1.0, 0.0, 1), "costs 1.10 passes per prompt, and a scan without a screen 1"),
    ],
)
def test_where_nothing_fits_it_is_refused(asked, words):
    with pytest.raises(ScannerError, match=words):
        choose(TABLE, *asked)


def test_what_first_passes_keep_comes_with_overscan():
    table = screens.read()
    assert set(table["side"].to_list()) == {1.0, 0.5}
    assert table["kept"].is_between(0, 1).all()
    assert set(table["score"].to_list()) <= SCORES.keys()
    for _, part in table.sort("share").group_by("side", "told", "score"):
        assert part["share"].to_list() == list(screens.SHARES)
        assert part["kept"].is_sorted(), "who gets more passes loses less"
    assert choose(table, 0.95, 1.0, 0.02, 4).price < 2


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"none.csv: no table of screens .* needed CSV with side, told, score"):
        read(tmp_path / "none.csv")
