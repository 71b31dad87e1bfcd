"""Constructor parameters of a model -> the same, if each has its type and is within its bounds, else ModelError.

    @checked
    def __init__(self, *, title_weight: WordWeight = 2, ...) -> None: ...

The types here are the only definition of the bounds. They validate a manifest when a model is loaded, and the
configuration of the asset before a run begins. The bounds are far wider than what makes sense, and narrow enough that
no number overflows and no text outgrows memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Literal, ParamSpec

from pydantic import ConfigDict, Field, ValidationError, validate_call

from bookclub_platform.core.errors import ModelError

WordWeight = Annotated[int, Field(ge=0, le=100)]
CategoryWeight = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Books = Annotated[int, Field(ge=0, le=1_000_000_000)]
FewestBooks = Annotated[int, Field(ge=1, le=1_000_000_000)]
Slugs = Annotated[Sequence[Annotated[str, Field(max_length=1_000)]], Field(max_length=10_000)]
Embedding = Literal["none", "lsa", "minilm"]

_P = ParamSpec("_P")


def checked(make: Callable[_P, None]) -> Callable[_P, None]:
    """Validate the arguments of `make`, a keyword-only `__init__`, by its annotations.

    Raises:
        ModelError: names the parameter, and says what it must be.
    """
    held = validate_call(config=ConfigDict(strict=True))(make)

    @wraps(make)
    def made(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            held(*args, **kwargs)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3]]
            raise ModelError(f"No model can be made with such parameters ({'; '.join(faults)}).") from error

    return made
