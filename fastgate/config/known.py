"""What can be relied on in a section that may be partly wrong, so that one mistake does not hide the next."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from fastgate.config.document import Finding
from fastgate.config.words import Section

S = TypeVar("S", bound=Section)


class Unknown(Exception):  # noqa: N818 - not an error: the check that meets it has nothing to say
    """A field was read whose value is wrong; that is already a finding of its own."""


class _Known:
    """Stands in for a section: the fields that are valid, defaults, and Unknown for the others."""

    def __init__(self, section: type[Section], data: dict[str, Any]) -> None:
        self._section = section
        self._data = data
        self.model_fields_set = frozenset(data) & frozenset(section.model_fields)

    def __getattr__(self, name: str) -> Any:
        field = self._section.model_fields[name]
        if name in self._data:
            try:
                return _adapter(self._section, name).validate_python(self._data[name])
            except ValidationError:
                raise Unknown(name) from None
        if field.is_required():
            raise Unknown(name)
        return field.get_default(call_default_factory=True, validated_data={})


@cache
def _adapter(section: type[Section], name: str) -> TypeAdapter[Any]:
    field = section.model_fields[name]
    kind: Any = field.annotation
    for constraint in field.metadata:
        kind = Annotated[kind, constraint]
    return TypeAdapter(kind)


def known(section: type[S], data: Any) -> S:
    """`data` as a section whose invalid and missing fields raise Unknown when they are read.

    Raises Unknown itself when `data` is no mapping.
    """
    if not isinstance(data, dict):
        raise Unknown(section.__name__)
    return cast("S", _Known(section, data))


def value_of(section: type[Section], data: Any, key: str) -> Any:
    """The value of one key, None where it is unknown."""
    try:
        return getattr(known(section, data), key)
    except Unknown:
        return None


def each(checks: Iterable[Callable[..., Iterator[Finding]]], *arguments: Any) -> Iterator[Finding]:
    """What every check finds. A check ends early where it reads what is wrong anyway."""
    for check in checks:
        try:
            yield from check(*arguments)
        except Unknown:
            continue


def items(data: Any) -> list[Any]:
    """The items of what should be a list; none when it is something else."""
    return data if isinstance(data, list) else []
