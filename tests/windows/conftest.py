"""The tests here run on Windows' Python (tests/vm/test_windows.py runs them)."""

import sys

collect_ignore_glob = [] if sys.platform == "win32" else ["test_*.py"]
