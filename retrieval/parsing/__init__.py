"""Files to `ParsedDocument`s: format detection, one parser per format, and a sandboxed worker.

`parse_bytes` parses in this process; `parse_file` in a worker process with time and memory limits.
"""

from retrieval.parsing.formats import SUPPORTED_EXTENSIONS, parse_bytes
from retrieval.parsing.sandbox import ParseLimits, ParseWorker, parse_file

__all__ = ["SUPPORTED_EXTENSIONS", "ParseLimits", "ParseWorker", "parse_bytes", "parse_file"]
