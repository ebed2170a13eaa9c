"""A client of the controller, for Python and for the command line.

from boincvm.client import Client, find_address

for vm in Client(find_address()).call("list", vms="site=cern")["vms"]:
    print(vm["id"])
"""

from boincvm.client.address import ControllerAddress, find_address
from boincvm.client.client import Client

__all__ = ["Client", "ControllerAddress", "find_address"]
