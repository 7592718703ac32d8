#!/bin/sh
# Score what is new, for at most $WINDOW, then report. Ends with the exit code that matters.
set -eu
code=0
timeout --preserve-status --signal=TERM "${WINDOW:-5h}" overscan scan || code=$?
case $code in
    0 | 3) ;; # 3: the window closed; what is committed is reported, and the next night goes on from there
    *) exit "$code" ;;
esac
overscan report
