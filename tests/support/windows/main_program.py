"""Where tests on Windows find the main program of an app version, and the packed folder."""

MAIN_PROGRAM = "BOINCVM_TEST_MAIN_PROGRAM"
PACKED_FOLDER = "BOINCVM_TEST_PACKED_FOLDER"
"""The variables that name the files."""
