#!/bin/sh
# Score what is new, for at most $WINDOW, then report into reports/DATE. Ends with the exit code that matters; 1: there
# are findings that baseline.json does not know. The first night that scores all captions keeps a threshold, by
# calibration.parquet if `overscan calibrate` made one, and accepts what it flags. From then on only captions that score
# as high are findings: a night that brings none is silent, and one that brings many flags them all. Once somebody has
# looked at a night's findings, this makes them known:
#   overscan accept --baseline baseline.json --report reports/DATE
# For a new checkpoint on the same captions (threshold.json is of the old one; then put the new one's in its place):
#   overscan recheck --baseline baseline.json --model NEW --out reports/NEW --report reports/DATE
set -eu
scanned=0
timeout --preserve-status --signal=TERM "${WINDOW:-5h}" overscan scan || scanned=$?
case $scanned in
    0 | 3) ;; # 3: the window closed; what is committed is reported, and the next night goes on from there
    *) exit "$scanned" ;;
esac
if [ "$scanned" = 0 ] && ! [ -e threshold.json ]; then
    if [ -e calibration.parquet ]; then
        overscan threshold --fpr "${FPR:-0.0001}" --calibration calibration.parquet --out threshold.json
    else
        overscan threshold --out threshold.json
    fi
fi
if ! [ -e threshold.json ]; then
    set -- --quantile 0.999 # a ranking of what is scored so far
elif [ -e baseline.json ]; then
    set -- --threshold threshold.json --baseline baseline.json --fail-on new
elif [ "$scanned" = 0 ]; then
    set -- --threshold threshold.json --write-baseline baseline.json
else
    set -- --threshold threshold.json
fi
overscan report --out "reports/${NIGHT:-$(date -u +%F)}" --nights reports "$@"
