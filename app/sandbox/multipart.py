"""Just enough of multipart/form-data to take one part out of a body.

Written by hand because Custom Vision's own clients send the image without a filename and without a content
type; form parsers take that for text, decode it, and refuse more than a megabyte of it.
"""

import re

_BOUNDARY = re.compile(r'boundary="?([^";,]+)"?', re.IGNORECASE)
_NAME = re.compile(rb';\s*name="?([^";\r\n]+)"?', re.IGNORECASE)


def part(body: bytes, content_type: str, name: str) -> bytes | None:
    """The content of the part called `name`, or None where the body has none."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        return None
    delimiter = b"\r\n--" + found.group(1).strip().encode("latin-1")
    rest = b"\r\n" + body  # so that the first delimiter looks like all others
    start = rest.find(delimiter)
    while start >= 0:
        start += len(delimiter)
        end = rest.find(delimiter, start)
        headers, blank, content = rest[start : end if end >= 0 else start].partition(b"\r\n\r\n")
        called = _NAME.search(headers)
        if blank and called is not None and called.group(1) == name.encode():
            return content
        start = end
    return None
