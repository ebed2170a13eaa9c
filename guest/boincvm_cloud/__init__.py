"""Cloud mode: the first process of a machine that no boincvm started.

It is told by a seed what the machine is: a disk as cloud-init's data source NoCloud has it. It is
not in images: a disk that was exported with `--cloud` has it behind its initial RAM disk.
"""
