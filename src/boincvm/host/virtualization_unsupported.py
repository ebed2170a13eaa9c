"""Virtualization where boincvm cannot look for it yet; import it through `virtualization`."""


def kvm_remedy() -> str:
    """Return "": only Linux has KVM."""
    return ""


def describe_nesting() -> str:
    """Return "": nothing is known."""
    return ""


def loaded_modules() -> frozenset[str]:
    """Return no module's name: they are not known."""
    return frozenset()


def namespaces_remedy() -> str:
    """Return "": only Linux has user namespaces."""
    return ""
