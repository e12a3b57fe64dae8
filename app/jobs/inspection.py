"""What a user should know about a data set before paying for it: duplicates, leaks, small classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contracts import Split
from app.errors import BadRequest
from app.jobs.duplicates import gather, near_pairs
from app.jobs.intake import Files
from app.jobs.pack import Item

#: Faults that refuse an upload unless `allow` names them.
FAULTS = ("leaks", "two_labels")
SMALL_CLASS = 5  # images
SHOWN = 10


@dataclass(frozen=True)
class Findings:
    """`sections` go into the report as they are; `warnings` are sentences."""

    sections: dict[str, Any]
    warnings: list[str]


def inspect(files: Files, counts: Mapping[Split, Mapping[str, int]], allow: Collection[str] = ()) -> Findings:
    """Same and nearly same images, within and across splits and labels; groups across splits; small classes.

    Rows of a table may be alike by chance, so theirs are warnings. Raises BadRequest `leaks_between_splits`
    and `contradictory_labels` unless allowed.
    """
    what = "image" if files.records is None else "record"
    same: dict[str, list[Item]] = defaultdict(list)
    grouped: dict[str, set[Split | None]] = defaultdict(set)
    for item in files.items:
        same[item.sha256].append(item)
        if item.group is not None:
            grouped[item.group].add(item.split)
    copies = [found for found in same.values() if len(found) > 1]
    leaks = [found for found in copies if _parted(found)]
    rivals = [found for found in copies if len({item.label for item in found}) > 1]
    stray = sorted(group for group, splits in grouped.items() if len(splits) > 1)
    if files.records is None or files.records.kind != "table":
        _refuse(leaks, rivals, allow, what)
    _refuse_stray(stray, allow)
    near, near_warnings = _near(files)
    sections = {
        "duplicates": {
            "images": sum(len(found) - 1 for found in copies),
            "under_two_labels": len(rivals),
            "examples": [_names(found) for found in (rivals or copies)[:SHOWN]],
        },
        "leaks": {
            "images": len(leaks),
            "groups": len(stray),
            "examples": [_names(found) for found in leaks[:SHOWN]],
        },
        **near,
    }
    warnings = [
        f"{_many(leaks, what)} in more than one split: the test figure will flatter." if leaks else "",
        f"{len(stray)} groups are in more than one split: the test figure will flatter." if stray else "",
        f"{_many(rivals, what)} there under two labels." if rivals else "",
        *near_warnings,
        *_class_warnings(counts),
    ]
    return Findings(sections, [warning for warning in warnings if warning])


def _shown(groups: Sequence[list[Item]], name: Callable[[Item], str]) -> str:
    """The first of the groups, by names of the first of their items."""
    few = "; ".join(" = ".join(name(item) for item in group[:3]) for group in groups[:3])
    return f"{few}{' ...' if len(groups) > 3 else ''}"


def _refuse(
    leaks: Sequence[list[Item]], rivals: Sequence[list[Item]], allow: Collection[str], what: str
) -> None:
    if leaks and "leaks" not in allow:
        shown = _shown(leaks, lambda item: f"{item.file} ({item.split})")
        raise BadRequest(
            f"{_many(leaks, what)} in more than one split: {shown}.",
            code="leaks_between_splits",
            hint="Take them out of all splits but one; or send ?allow=leaks to go on, with a flattered test.",
        )
    if rivals and "two_labels" not in allow:
        shown = _shown(rivals, lambda item: f"{item.file} ({item.label!r})")
        raise BadRequest(
            f"{_many(rivals, what)} there under two labels: {shown}.",
            code="contradictory_labels",
            hint="Keep the label that is right; or send ?allow=two_labels to go on with both.",
        )


def _refuse_stray(stray: Sequence[str], allow: Collection[str]) -> None:
    if stray and "leaks" not in allow:
        more = f" and {len(stray) - 5} more" if len(stray) > 5 else ""
        raise BadRequest(
            f"Groups {', '.join(map(repr, stray[:5]))}{more} are in more than one split.",
            code="leaks_between_splits",
            hint="Leave the splits out, then groups are kept together; or send ?allow=leaks to go on.",
        )


def _near(files: Files) -> tuple[dict[str, Any], list[str]]:
    """Pictures that look alike without being the same. Not for records: theirs is no likeness of things."""
    if files.records is not None:
        return {}, []
    first: dict[str, Item] = {}  # of exact copies, one is compared
    for item in files.items:
        first.setdefault(item.sha256, item)
    items = list(first.values())
    pairs, whole = near_pairs([files.thumbnails[item.offset] for item in items])
    alike = [[items[i] for i in rows] for rows in gather(pairs)]
    leaks = [found for found in alike if _parted(found)]
    rivals = sum(len({item.label for item in found}) > 1 for found in alike)
    section = {
        "images": sum(len(found) - 1 for found in alike),
        "across_splits": len(leaks),
        "under_two_labels": rivals,
        "all_compared": whole,
        "examples": [_names(found) for found in (leaks or alike)[:SHOWN]],
    }
    warnings = [
        f"{len(leaks)} sets of nearly identical images are in more than one split "
        f"({' and '.join(_names(leaks[0])[:2])}): the test figure may flatter. A group column joins them."
        if leaks
        else "",
        f"{rivals} sets of nearly identical images have different labels." if rivals else "",
        "" if whole else "Too many images look alike to compare them all; near duplicates may be missing.",
    ]
    return {"near_duplicates": section}, warnings


def _many(found: Sequence[object], what: str) -> str:
    return f"1 {what} is" if len(found) == 1 else f"{len(found)} {what}s are"


def _parted(found: Sequence[Item]) -> bool:
    return len({item.split for item in found}) > 1


def _names(found: Sequence[Item]) -> list[str]:
    return [item.file for item in found[:SHOWN]]


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
