"""Linux's signal numbers, for programs in guests, whatever the host's system."""

INTERRUPT = 2
KILL = 9
TERMINATE = 15
CONTINUE = 18
