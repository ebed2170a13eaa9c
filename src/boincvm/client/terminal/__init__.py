"""A remote shell: a terminal in the guest, and the user's own terminal given to it for a while.

In the guest it is a command like others, with input that follows: `far` runs there, `near` is at
the user's end, and `words` is what goes between them.
"""
