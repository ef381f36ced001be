"""Checks parameter names in query strings and forms: a misspelled name is an error instead of being ignored."""

import re
from collections import Counter
from collections.abc import Collection
from difflib import get_close_matches

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes

from app.errors import OutOfRangeError

REPEATABLE_NAME = re.compile(r"[A-Za-z_][\w.\[\]-]{0,63}", re.ASCII)
"""Names that an error message may repeat: identifiers only, because anything else may be patient data."""


async def require_known_parameters(request: Request) -> None:
    """Require that the query string has only parameters of the endpoint, each at most once.

    An endpoint without parameters accepts any, such as the timestamp that a probe adds to bypass caches.

    Raises:
        OutOfRangeError: a parameter is unknown or repeated; the message suggests the nearest known name.
    """
    if not request.query_params:
        return
    known = _query_parameters(request)
    if not known:
        return
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        require_known(name, known, "parameter of this endpoint")
        if count > 1:
            raise OutOfRangeError(f"'{name}' was sent {count} times; send it once.")


def require_known(name: str, known: Collection[str], kind: str) -> None:
    """Require that the name of a parameter or form field is one of the known ones.

    Args:
        kind: what the name should be, such as "form field".

    Raises:
        OutOfRangeError: the name is unknown; the message suggests the nearest known one.
    """
    if name in known:
        return
    word = f"'{name}'" if REPEATABLE_NAME.fullmatch(name) else "One of the names"
    others = ", ".join(sorted(known))
    raise OutOfRangeError(f"{word} is not a {kind}; the nearest is '{nearest(name, known)}'. Known: {others}.")


def nearest(name: str, known: Collection[str]) -> str:
    """Return the known parameter that occurs as a word in the given name; if there is none, the most similar one."""
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
    # Fields of a model do not say where they come from; in this application, only query strings use models.
    declared = ((field.alias, getattr(field.field_info, "in_", None)) for field in get_flat_params(dependant))
    return {name for name, place in declared if place in (None, ParamTypes.query)}
