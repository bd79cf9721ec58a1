"""The proxies that are measured: fastgate, bare ones that ask nobody, and those that do the same work."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench import apache, parts
from bench.machine import PROXY_CORE, ROOT
from bench.parts import Part, World
from bench.settings import PROVIDER, SCOPE, gateway_config
from tests.support.process import free_port, scratch

_NGINX = """\
    upstream origin {{
        server 127.0.0.1:{origin};
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            {access}
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
        {more}
    }}"""
_HAPROXY = """\
defaults
    mode http
    timeout client 1h
    timeout server 1h
    timeout connect 5s
    option http-keep-alive
    http-reuse always
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
"""
_LUA = "/usr/lib/nginx/modules/ngx_http_lua_module.so"
_LUA_MODULES = f"load_module {Path(_LUA).with_name('ndk_http_module.so')};\nload_module {_LUA};\n"
# The work of lua-resty-openidc's introspect: a shared dictionary holds the answer as JSON, read at every request.
_LUA_ACCESS = """access_by_lua_block {{
                local cjson, known = require "cjson.safe", ngx.shared.introspection
                local given = ngx.var.http_authorization
                local token = given and given:match("^[Bb]earer +([^ ]+)$")
                if not token then return ngx.exit(401) end
                local said = known:get(token)
                if not said then
                    local answer = ngx.location.capture("/introspection", {{ method = ngx.HTTP_POST,
                        body = ngx.encode_args({{ token = token, token_type_hint = "access_token" }}) }})
                    if answer.status ~= 200 then return ngx.exit(503) end
                    said = answer.body
                    local told = cjson.decode(said)
                    if not told then return ngx.exit(503) end
                    known:set(token, said, told.exp and told.exp - ngx.time() or 3600)
                end
                local state = cjson.decode(said)
                if not state.active or (state.exp and state.exp <= ngx.time()) then return ngx.exit(401) end
                for scope in (state.scope or ""):gmatch("[^ ]+") do
                    if scope == "{scope}" then return end
                end
                return ngx.exit(403)
            }}"""
_LUA_ASKS = """location = /introspection {{
            internal;
            proxy_pass http://127.0.0.1:{idp}{asks};
            proxy_pass_request_headers off;
            proxy_set_header Content-Type application/x-www-form-urlencoded;
            proxy_set_header Authorization "Basic YmVuY2g6YmVuY2g=";
        }}"""


class Proxy(Protocol):
    """What a subject of a measurement is: equal ones are one process."""

    @property
    def name(self) -> str:
        """In tables."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Debian packages."""

    @property
    def guards(self) -> bool:
        """Whether it verifies tokens."""

    def open(self, world: World) -> AbstractContextManager[Part]:
        """Run it."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """fastgate with one protected route; its access log, if any, is JSON in a file."""

    name: str = "fastgate"
    express: bool = True
    access_log: bool = False
    connections: int = 10_000
    workers: int = 1
    inactive_rate: int = 200
    """Inactive answers a second, as by default."""
    tree: Path = ROOT
    needs: tuple[str, ...] = ()
    guards: bool = True
    interpreter: tuple[str, ...] = (sys.executable,)

    @contextmanager
    def open(self, world: World) -> Iterator[Part]:
        """Run it."""
        port, asks, file = free_port(), f"/introspect/{parts.plain(self.name)}", scratch("bench") / "fastgate.yaml"
        config = gateway_config(
            port=port,
            origin=world.origin.port,
            idp=world.idp.port,
            access_log=self.access_log,
            limits={"connections": self.connections, "keepalive_timeout": "1h"},
            asks=asks,
            more={
                **({} if self.express or not self.has_express_lane else {"express_lane": False}),
                **({"workers": self.workers} if self.workers > 1 else {}),
            },
        )
        config["identity_providers"][PROVIDER]["introspection_inactive_rate"] = self.inactive_rate
        file.write_text(json.dumps(config))  # JSON is YAML
        command = [*self.interpreter, "-m", "fastgate", "run", "-c", str(file)]
        with parts.running(self.name, command, port, PROXY_CORE, self.tree) as part:
            yield part._replace(questions=_questions(world, asks))

    @property
    def has_express_lane(self) -> bool:
        """Whether this checkout knows the setting."""
        return "express_lane" in (self.tree / "fastgate/config/schema.py").read_text()


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else's proxy."""

    name: str
    run: Callable[[World, int, str], AbstractContextManager[Part]]
    """(world, port, the path to ask the identity provider at)"""
    needs: tuple[str, ...] = ()
    guards: bool = True

    @contextmanager
    def open(self, world: World) -> Iterator[Part]:
        """Run it."""
        asks = f"/introspect/{parts.plain(self.name)}"
        with self.run(world, free_port(), asks) as part:
            yield part._replace(questions=_questions(world, asks) if self.guards else "")


def _questions(world: World, asks: str) -> str:
    return f"http://127.0.0.1:{world.idp.port}{asks.replace('/introspect/', '/questions/')}"


def _nginx(world: World, port: int, _: str) -> AbstractContextManager[Part]:
    return parts.nginx("nginx", _NGINX.format(port=port, origin=world.origin.port, access="", more=""), port)


def _nginx_lua(world: World, port: int, asks: str) -> AbstractContextManager[Part]:
    access, more = _LUA_ACCESS.format(scope=SCOPE), _LUA_ASKS.format(idp=world.idp.port, asks=asks)
    http = _NGINX.format(port=port, origin=world.origin.port, access=access, more=more)
    shared = "    lua_shared_dict introspection 10m;\n"
    return parts.nginx("nginx-lua", shared + http, port, modules=_LUA_MODULES)


def _haproxy(world: World, port: int, _: str) -> AbstractContextManager[Part]:
    return parts.haproxy("haproxy", _HAPROXY.format(port=port, origin=world.origin.port), port)


NGINX = Peer("nginx", _nginx, guards=False)
HAPROXY = Peer("HAProxy", _haproxy, ("haproxy",), guards=False)
NGINX_LUA = Peer("nginx + Lua introspection", _nginx_lua, ("libnginx-mod-http-lua", "lua-resty-core", "lua-cjson"))
MOD_AUTH_OPENIDC = Peer(
    "Apache mod_auth_openidc",
    apache.mod_auth_openidc,
    ("apache2-bin", "libapache2-mod-auth-openidc", "openssl"),
)
MOD_OAUTH2 = Peer(
    "Apache mod_oauth2",
    apache.mod_oauth2,
    ("apache2-bin", "libapache2-mod-oauth2"),
)
FASTGATE = Gateway()
GENERAL_LANE = Gateway("fastgate, general lane", express=False)
ACCESS_LOG = Gateway("fastgate, access log", access_log=True)
