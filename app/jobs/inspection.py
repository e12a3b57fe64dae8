"""What a user should know about a data set before paying for it: duplicates, leaks, small classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contracts import Split
from app.jobs.pack import Item

SMALL_CLASS = 5  # images
SHOWN = 10


@dataclass(frozen=True)
class Findings:
    """`sections` go into the report as they are; `warnings` are sentences."""

    sections: dict[str, Any]
    warnings: list[str]


def inspect(items: Sequence[Item], counts: Mapping[Split, Mapping[str, int]]) -> Findings:
    """Identical pixels within and across splits and labels, groups across splits, small classes."""
    same: dict[str, list[Item]] = defaultdict(list)
    grouped: dict[str, set[Split | None]] = defaultdict(set)
    for item in items:
        same[item.sha256].append(item)
        if item.group is not None:
            grouped[item.group].add(item.split)
    copies = [found for found in same.values() if len(found) > 1]
    leaks = [found for found in copies if len({item.split for item in found}) > 1]
    rivals = [found for found in copies if len({item.label for item in found}) > 1]
    stray = [group for group, splits in grouped.items() if len(splits) > 1]
    sections = {
        "duplicates": {
            "images": sum(len(found) - 1 for found in copies),
            "under_two_labels": len(rivals),
            "examples": [[item.file for item in found[:SHOWN]] for found in (rivals or copies)[:SHOWN]],
        },
        "leaks": {
            "images": len(leaks),
            "groups": len(stray),
            "examples": [[item.file for item in found[:SHOWN]] for found in leaks[:SHOWN]],
        },
    }
    warnings = [
        f"{len(leaks)} images are in more than one split: the test figure will flatter." if leaks else "",
        f"{len(stray)} groups are in more than one split: the test figure will flatter." if stray else "",
        f"{len(rivals)} images appear under two labels." if rivals else "",
        *_class_warnings(counts),
    ]
    return Findings(sections, [warning for warning in warnings if warning])


def _class_warnings(counts: Mapping[Split, Mapping[str, int]]) -> list[str]:
    total: dict[str, int] = defaultdict(int)
    for row in counts.values():
        for name, count in row.items():
            total[name] += count
    small = [name for name, count in total.items() if count < SMALL_CLASS]
    warnings = [
        f"Class {name!r} has only {total[name]} images; 50 or more are better." for name in small[:SHOWN]
    ]
    for split, row in counts.items():
        absent = [name for name, count in row.items() if count == 0]
        if absent:
            warnings.append(f"No {split} image of {', '.join(map(repr, absent[:SHOWN]))}.")
    return warnings
