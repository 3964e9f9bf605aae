"""Examples of docstrings as the site shows them: an extension of griffe, which reads the source for `mkdocs.yml`.

Docstrings here head an example by `Example:`, indented below it or not; griffe knows `Examples:`, indented.
"""

import re
from typing import Any

import griffe

HEADING = re.compile(r"^Example:\n+", re.MULTILINE)


class DocstringExamples(griffe.Extension):
    """What makes every example a section of its own, set as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = with_sections(obj.docstring.value)


def with_sections(text: str) -> str:
    """A docstring with its example as griffe understands it.

    Example:
        >>> with_sections("A sum.\\n\\nExample:\\n\\n>>> 1 + 1\\n2").splitlines()
        ['A sum.', '', 'Examples:', '    >>> 1 + 1', '    2']
    """
    found = HEADING.search(text)
    if not found:
        return text
    example = text[found.end() :]
    if not example.startswith(" "):
        example = "\n".join(f"    {line}" if line else line for line in example.split("\n"))
    return f"{text[: found.start()]}Examples:\n{example}"
