"""The folder that a volunteer's computer runs boincvm from: no Python, nothing installed.

build.py makes it from the inputs that inputs.toml pins; launcher/ has the programs that start its
Python. docs/volunteer-folder.md says what it holds.
"""
