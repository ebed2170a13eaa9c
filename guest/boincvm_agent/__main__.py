"""Started by the initrd's init script as the guest's first process."""

import sys

from boincvm_agent.agent import main
from boincvm_agent.port import open_port, open_serial_port

main(open_serial_port() if sys.argv[1:] == ["serial"] else open_port())
