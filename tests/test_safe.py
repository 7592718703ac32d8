"""Hostile text made safe to show."""

from scanner.pages.safe import printable


def test_captions_cannot_control_the_terminal():
    assert printable("a\x1b[31m\u202eb\n日本") == "a\\x1b[31m\\u202eb\\n日本"
