"""What the host's processor and kernel offer to hypervisors, and who else uses it."""

import sys

if sys.platform == "linux":
    from boincvm.host.virtualization_linux import (
        describe_nesting,
        kvm_remedy,
        loaded_modules,
        namespaces_remedy,
    )
else:
    from boincvm.host.virtualization_unsupported import (
        describe_nesting,
        kvm_remedy,
        loaded_modules,
        namespaces_remedy,
    )

__all__ = ["describe_nesting", "kvm_remedy", "loaded_modules", "namespaces_remedy"]
