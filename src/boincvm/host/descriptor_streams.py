"""Reading and writing descriptors of any kind without blocking the event loop.

Others may share them, so they are not made non-blocking.
"""

import sys

if sys.platform == "win32":
    from boincvm.host.descriptor_streams_windows import DescriptorReader, DescriptorWriter
else:
    from boincvm.host.descriptor_streams_posix import DescriptorReader, DescriptorWriter

__all__ = ["DescriptorReader", "DescriptorWriter"]
