"""What the kernel of an image is told in a machine of any hypervisor."""

COMMON = (
    "quiet",
    "loglevel=1",  # with 0 the kernel would not even print why it panics
    "random.trust_cpu=on",
    "panic=-1",
    # The kernel's tests of its own cryptography took half of the boot, and a machine that has
    # just started has no secrets in its memory to be cleared before use (docs/benchmarks.md).
    "cryptomgr.notests",
    "init_on_alloc=0",
    # Nothing uses pressure information, isolation between the guest's programs, or grouping of
    # them by memory or terminal; and emulation need not translate what the kernel does not do
    # (docs/checkpoints.md).
    "psi=0",
    "lsm=",
    "cgroup_disable=memory",
    "noautogroup",
    # Nor does an idle guest have to wake up twice a second to look for memory to compact, and once
    # to sum up its counters.
    "sysctl.vm.compaction_proactiveness=0",
    "sysctl.vm.stat_interval=120",
)
JOURNAL = "boincvm_journal=yes"
"""The init script mounts the root with its journal: the disk may be booted from again, however the
machine ends. Without it nothing is written twice: the disk of a run is discarded with it, and a
checkpoint holds memory and disk of the same moment, so there is never a journal to replay."""
X86_64 = (
    *COMMON,
    # Hypervisors deliver the timer's interrupts. Linux would wait for ten of them at each boot, and
    # panic if they come too late, as on a busy host: "IO-APIC + timer doesn't work!".
    "no_timer_check",
)
