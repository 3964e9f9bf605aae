"""Tally of a campaign: how its cases ended, which of them not well, and the JSON of both."""

import collections
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

SHOWN = 60


class Tally:
    """Outcomes of cases, counted by group.

    Args:
        fine: the outcomes that are as they should be.
    """

    def __init__(self, fine: Collection[str]) -> None:
        self._fine = fine
        self.counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.bad: list[tuple[str, Any, str, str]] = []

    def add(self, group: str, case: Any, outcome: str, message: str) -> bool:
        """Counts a case; whether it ended well."""
        self.counts[group][outcome] += 1
        if outcome not in self._fine:
            self.bad.append((group, case, outcome, message))
        return outcome in self._fine

    def finish(self, out: Path | None, **settings: Any) -> int:
        """Prints the counts and the cases that did not end well, writes all to `out`; returns the exit status."""
        for one in self.bad[:SHOWN]:
            print(*one)
        for group, outcomes in self.counts.items():
            print(f"{group:20} {dict(outcomes)}")
        print(f"in all {dict(sum(self.counts.values(), collections.Counter()))}")
        if out is not None:
            out.write_text(json.dumps({**settings, "counts": self.counts, "bad": self.bad}, indent=1) + "\n")
        return 1 if self.bad else 0
