#!/bin/sh
# factor.sh B1 CURVES FIRST: tries CURVES elliptic curves on the number in number.txt.
#
# The curves are FIRST, FIRST + 1, …, so every computer that has the same task does the same
# work and finds the same factors: the project's validator can compare factors.txt byte by byte.
set -u
bound=$1 curves=$2 first=$3
tried=0
while [ "$tried" -lt "$curves" ]; do
    # GMP-ECM tells what it found by its exit status: bit 1 (2) says a factor was found.
    ecm -q -sigma "0:$((first + tried))" "$bound" <number.txt >found.txt
    status=$?
    if [ $((status & 2)) -ne 0 ]; then
        mv found.txt factors.txt
        exit 0
    elif [ $((status & 1)) -ne 0 ]; then
        echo "ecm failed with exit status $status" >&2
        exit 1
    fi
    tried=$((tried + 1))
    awk "BEGIN { print $tried / $curves }" >fraction_done
done
echo none >factors.txt
