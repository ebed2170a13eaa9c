"""Started by the initrd's init script as the guest's first process."""

from boincvm_agent.agent import main
from boincvm_agent.port import open_port

main(open_port())
