"""Which machines of a controller can run programs now."""

from collections.abc import Mapping

from boincvm.client.client import Client


def present_machines(client: Client, selector: str) -> list[str]:
    """Return the ids of the machines that a selector matches and that can run programs now.

    Raises BoincvmError.
    """
    vms = client.call("list", vms=selector).get("vms")
    return [
        str(vm["id"])
        for vm in (vms if isinstance(vms, list) else ())
        if isinstance(vm, dict) and _can_run(vm)
    ]


def _can_run(vm: Mapping[str, object]) -> bool:
    capabilities = vm.get("capabilities")
    # A guest that is a host itself reports no state.
    is_up = vm.get("state") in ("running", "unknown") and vm.get("presence") == "present"
    return is_up and isinstance(capabilities, list) and {"run", "files"} <= set(capabilities)
