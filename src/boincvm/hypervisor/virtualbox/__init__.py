"""The driver for VirtualBox, by its own command line, `VBoxManage` and `VBoxHeadless`.

Each machine has a VirtualBox of its own: a registry, a service and sockets in a private directory.
So no machine of a person is ever touched, and nothing of ours stays in a person's registry.
"""
