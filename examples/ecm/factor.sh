#!/bin/sh
# GMP-ECM tells what it found by its exit status: bit 1 (2) says a factor was found.
ecm -q -c 500 2e3 <number.txt >factors.txt
[ $(($? & 2)) -ne 0 ]
