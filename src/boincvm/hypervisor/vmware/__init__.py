"""The driver for VMware Workstation, Player and Fusion, by their own command line, `vmrun`.

It is unproved: nobody has run it with a real VMware. The tests run it with a stand-in for `vmrun`
that keeps the rules which VMware's manual and its users report (tests/support/vmware). So it is
taken only by who asks for it by name.
"""
