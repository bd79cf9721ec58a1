"""What we rely on of aiohttp's inside: fails loudly when a release changes it."""

import inspect
import re

import aiohttp
import pytest
from aiohttp import http_parser
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web_protocol import RequestHandler

from fastgate.dataplane import aiohttp_seam as seam
from fastgate.dataplane import server
from fastgate.errors import StartError


def test_this_aiohttp_is_one_we_know():
    """The installed version is supported and its parser is the compiled one."""
    seam.check_aiohttp()


@pytest.mark.parametrize("version", ["3.14.1", "3.15.0", "3.15.0rc1", "4.0.0", "3.13.9"])
def test_an_unknown_aiohttp_is_refused_at_start(monkeypatch, version):
    """One sentence that says what to install."""
    monkeypatch.setattr(aiohttp, "__version__", version)
    with pytest.raises(StartError, match="pip install"):
        seam.check_aiohttp()


def test_the_pure_python_parser_is_refused_at_start(monkeypatch):
    """P6: it is laxer and far slower; the sentence says how it comes about."""
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(StartError, match="AIOHTTP_NO_EXTENSIONS"):
        seam.check_aiohttp()


def test_the_attributes_the_seam_touches_exist():
    """Each `protocol._name` of the seam is a slot or a method of aiohttp's protocol."""
    touched = set(re.findall(r"protocol\.(_\w+)", inspect.getsource(seam)))
    assert touched == {"_parser"}
    known = set(RequestHandler.__slots__) | set(BaseProtocol.__slots__) | set(dir(RequestHandler))
    assert touched <= known


def test_nothing_else_touches_the_inside():
    """The protocol itself names aiohttp's private attributes nowhere but through the seam."""
    inside = {name for each in (RequestHandler, BaseProtocol) for name in each.__slots__ if name.startswith("_")}
    named = set(re.findall(r"self\.(_\w+)", inspect.getsource(server)))
    assert not named & (inside - set(server.DownstreamProtocol.__slots__))
