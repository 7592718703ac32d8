"""`python -m scanner`: the command line without the `overscan` script."""

from scanner.cli import main

main()
