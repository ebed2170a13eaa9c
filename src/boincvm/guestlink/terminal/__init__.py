"""A remote shell: a terminal in the guest, connected to the user's own terminal.

In the guest it is an ordinary command whose input follows: `remote` runs there, `local` has what
the user's end needs, and `protocol` defines what is sent between them.
"""
