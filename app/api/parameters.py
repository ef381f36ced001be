"""Names that a caller may use, in the query string and in forms: a slip in one is told, never ignored."""

import re
from collections import Counter
from collections.abc import Collection
from difflib import get_close_matches

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes

from app.errors import OutOfRangeError

REPEATABLE_NAME = re.compile(r"[A-Za-z_][\w.\[\]-]{0,63}", re.ASCII)
"""What an error repeats of a caller's own words: an identifier, which cannot be a value that slipped into its place."""


async def require_known_parameters(request: Request) -> None:
    """Be sure that the query string holds nothing but what the endpoint takes, each once.

    An endpoint that takes nothing passes whatever comes, such as the time that a probe adds against caches.

    Raises:
        OutOfRangeError: names the first that is unknown, with the nearest known one, or that comes twice.
    """
    if not request.query_params:
        return
    known = _query_parameters(request)
    if not known:
        return
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        require_known(name, known, "parameter of this endpoint")
        if count > 1:
            raise OutOfRangeError(f"'{name}' comes {count} times; send it once.")


def require_known(name: str, known: Collection[str], kind: str) -> None:
    """Raises: OutOfRangeError: the name is none of the known ones; says which is nearest.

    Args:
        kind: what the name should be, such as "form field".
    """
    if name in known:
        return
    word = f"'{name}'" if REPEATABLE_NAME.fullmatch(name) else "A name that was sent"
    others = ", ".join(sorted(known))
    raise OutOfRangeError(f"{word} is no {kind}; the nearest is '{nearest(name, known)}'. Known: {others}.")


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that was most likely meant: one that is a word of the given name, or looks like it."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return (
        next((word for word in words if word in known), None)
        or get_close_matches(name.lower(), sorted(known), n=1, cutoff=0)[0]
    )


def _query_parameters(request: Request) -> set[str]:
    route = request.scope.get("route")
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return set()
    # The fields of a model say not where they come from; only query strings are declared by models here.
    declared = ((field.alias, getattr(field.field_info, "in_", None)) for field in get_flat_params(dependant))
    return {name for name, place in declared if place in (None, ParamTypes.query)}
