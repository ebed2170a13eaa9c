"""The agent: the guest's first process, which serves the host.

It uses little of the standard library: Python starts about twenty times slower under emulation, so
no asyncio, typing, subprocess, json or re. It speaks STOMP 1.2 over the virtio-serial port
`boincvm.agent`; docs/under-the-hood.md lists the messages.

Modules that are imported at the start use `posix` in place of `os`, which is built on it: `os`
imports abstract collections, and an emulator has to translate all code that runs for the first time
(docs/benchmarks.md).
"""
