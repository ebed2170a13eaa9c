"""What the host's processor and kernel offer to hypervisors, and who else uses it."""

import sys

if sys.platform == "linux":
    from boincvm.host.virtualization_linux import (
        ACCELERATOR,
        HAS_MEMORY_FILES,
        HAS_SECCOMP,
        accelerator_obstacle,
        accelerator_remedy,
        describe_nesting,
        loaded_modules,
        namespaces_remedy,
    )
else:
    from boincvm.host.virtualization_unsupported import (
        ACCELERATOR,
        HAS_MEMORY_FILES,
        HAS_SECCOMP,
        accelerator_obstacle,
        accelerator_remedy,
        describe_nesting,
        loaded_modules,
        namespaces_remedy,
    )

__all__ = [
    "ACCELERATOR",
    "HAS_MEMORY_FILES",
    "HAS_SECCOMP",
    "accelerator_obstacle",
    "accelerator_remedy",
    "describe_nesting",
    "loaded_modules",
    "namespaces_remedy",
]
