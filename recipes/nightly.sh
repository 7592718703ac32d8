#!/bin/sh
# Score what is new, for at most $WINDOW, then report into reports/DATE. Ends with the exit code that matters; 1: there
# are findings that baseline.json does not know. The first night that scores all captions writes it. Once somebody has
# looked at a night's findings, this makes them known:
#   overscan report --write-baseline baseline.json
set -eu
scanned=0
timeout --preserve-status --signal=TERM "${WINDOW:-5h}" overscan scan || scanned=$?
case $scanned in
    0 | 3) ;; # 3: the window closed; what is committed is reported, and the next night goes on from there
    *) exit "$scanned" ;;
esac
if [ -e baseline.json ]; then
    set -- --baseline baseline.json --fail-on new
elif [ "$scanned" = 0 ]; then
    set -- --write-baseline baseline.json
fi
overscan report --out "reports/${NIGHT:-$(date -u +%F)}" --nights reports "$@"
