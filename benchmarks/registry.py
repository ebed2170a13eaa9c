"""The benchmarks there are. A new one is one file and one line here."""

from benchmarks import (
    boinc_idle,
    boinc_machine,
    boinc_reactions,
    channel_wait,
    cold_start,
    exit_reaction,
    guest_overhead,
    idle,
    output_stream,
    process_start,
    round_trip,
    transfer,
)

BENCHMARKS = (
    process_start.CLI,
    process_start.WRAPPER,
    cold_start.BENCHMARK,
    transfer.BENCHMARK,
    idle.BENCHMARK,
    exit_reaction.BENCHMARK,
    guest_overhead.BENCHMARK,
    round_trip.BENCHMARK,
    output_stream.BENCHMARK,
    boinc_reactions.BENCHMARK,
    boinc_machine.BENCHMARK,
    boinc_idle.BENCHMARK,
    channel_wait.BENCHMARK,
)
