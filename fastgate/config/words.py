"""The kinds of text a value may be: names, header names, scopes, claim paths, messages."""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from fastgate.config.addresses import url

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_SCOPES: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")
_WORDS: Final = re.compile(r"[^\s\x00-\x1f\x7f]+(?: [^\s\x00-\x1f\x7f]+)*")
_TEXT: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_REALM: Final = re.compile(r"[ !#-\[\]-~]{1,256}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_METHOD: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors, and no error message carries what was written."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _matching(pattern: re.Pattern[str], complaint: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(complaint)
        return text

    return AfterValidator(check)


def _url_text(text: str) -> str:
    url(text)
    return text


def _url_with_query(text: str) -> str:
    url(text, query=True)
    return text


def _redirect(text: str) -> str:
    if not (text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()):
        url(text.partition("#")[0], query=True)
    if not text.isascii() or " " in text:
        raise ValueError("must be an absolute URL or a path that starts with /, in ASCII, without spaces")
    return text


def _header_value(secret: SecretStr) -> SecretStr:
    if not _VALUE.fullmatch(secret.get_secret_value()):
        raise ValueError("must be printable ASCII without line ends")
    return secret


def _not_empty(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value():
        raise ValueError("must not be empty")
    return secret


def _exact_case(value: Any) -> Any:
    if isinstance(value, str) and value != value.upper():
        raise ValueError("must be in capital letters, as methods are case-sensitive")
    return value


Name = Annotated[
    str, _matching(_NAME, "must be 1 to 64 letters, digits, '_', '.' or '-', starting with a letter or digit")
]
"""A name of ours; it becomes a metric label and a word in the log."""
HeaderName = Annotated[str, _matching(_HEADER, "must be a header name of letters, digits and '-'")]
Token = Annotated[str, _matching(_TOKEN, "must be a token of RFC 9110: letters, digits and !#$%&'*+.^_`|~-")]
Scopes = Annotated[
    str,
    _matching(_SCOPES, "must be one or more words with one space between two; no quotes or backslashes"),
]
"""Scopes that must all be there (RFC 6749 section 3.3): one alternative of a requirement."""
Words = Annotated[str, _matching(_WORDS, "must be one or more words with one space between two")]
"""The same for claims whose words may hold any character."""
Text = Annotated[str, _matching(_TEXT, "must be text on one line and not empty")]
Realm = Annotated[str, _matching(_REALM, "must be printable ASCII without quotes and backslashes")]
Url = Annotated[str, AfterValidator(_url_text)]
UrlWithQuery = Annotated[str, AfterValidator(_url_with_query)]
Redirect = Annotated[str, AfterValidator(_redirect)]
Method = Annotated[
    str,
    _matching(_METHOD, "must be an HTTP method, such as GET"),
    BeforeValidator(_exact_case),
]
FileName = Annotated[str, _matching(_TEXT, "must be the path of a file")]
ClaimPathOf = Annotated[tuple[Text, ...], Field(min_length=1, max_length=16)]
"""Names of nested members, outermost first."""
Secret = Annotated[SecretStr, AfterValidator(_not_empty), WithJsonSchema({"type": "string", "x-kind": "secret"})]
SecretValue = Annotated[
    SecretStr, AfterValidator(_header_value), WithJsonSchema({"type": "string", "x-kind": "secret"})
]
"""Something that may stand in a header and may be secret."""
