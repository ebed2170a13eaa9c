"""The agent: the first process of the guest, and the host's hand in it.

Standard library only, and little of that: Python starts about twenty times slower under
emulation, so no asyncio, typing, subprocess, json or re. It speaks STOMP 1.2 over the
virtio-serial port `boincvm.agent`; docs/under-the-hood.md lists the words.

What is imported at the start takes `posix`, of which `os` is made, in its place: `os` brings in
abstract collections, and all that is done for the first time has to be translated
(docs/benchmarks.md).
"""
