"""Apache with mpm_event and one of its two modules that introspect tokens: the same work as the gateway's.

The module remembers tokens in shared memory, requires a scope, and mod_proxy keeps the origin's connections open. Both
modules compare the whole scope claim, which is less work than looking for a word in it.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from bench import parts
from bench.machine import LOAD_CORE, PROXY_CORE
from bench.parts import Part, World
from bench.settings import GRANTED
from tests.support.process import free_port, scratch

_MODULES = "/usr/lib/apache2/modules"
_APACHE = """\
ServerName localhost
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
Mutex default:{folder}
Listen 127.0.0.1:{port}
ListenBackLog 4096
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authn_core_module {modules}/mod_authn_core.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
{module}
ErrorLog /dev/stderr
LogLevel error
StartServers 1
ServerLimit 1
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 128
KeepAlive On
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
ProxyPass / http://127.0.0.1:{origin}/ keepalive=On
"""
_MOD_AUTH_OPENIDC = """\
LoadModule auth_openidc_module {modules}/mod_auth_openidc.so
OIDCOAuthIntrospectionEndpoint https://127.0.0.1:{idp}{asks}
OIDCOAuthIntrospectionEndpointAuth client_secret_basic
OIDCOAuthSSLValidateServer Off
OIDCOAuthClientID bench
OIDCOAuthClientSecret bench
OIDCOAuthTokenExpiryClaim exp absolute
OIDCOAuthRemoteUserClaim sub
<Location />
    AuthType oauth20
    Require claim "scope:{granted}"
</Location>
"""
_MOD_OAUTH2 = """\
LoadModule oauth2_module {modules}/mod_oauth2.so
OAuth2Cache shm max_entries=1000
OAuth2TokenVerify introspect http://127.0.0.1:{idp}{asks} \
introspect.auth=client_secret_basic&client_id=bench&client_secret=bench&expiry=3600
<Location />
    AuthType oauth2
    Require oauth2_claim "scope:{granted}"
</Location>
"""
_TLS = """\
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        location / {{ proxy_pass http://127.0.0.1:{idp}; }}
    }}"""


@contextmanager
def mod_auth_openidc(world: World, port: int, asks: str) -> Iterator[Part]:
    """Run it; this module asks over TLS only."""
    with _tls(world.idp) as idp:
        module = _MOD_AUTH_OPENIDC.format(modules=_MODULES, idp=idp.port, asks=asks, granted=GRANTED)
        with _apache("mod_auth_openidc", world, port, module) as part:
            yield part


def mod_oauth2(world: World, port: int, asks: str) -> AbstractContextManager[Part]:
    """Run it."""
    module = _MOD_OAUTH2.format(modules=_MODULES, idp=world.idp.port, asks=asks, granted=GRANTED)
    return _apache("mod_oauth2", world, port, module)


def _apache(name: str, world: World, port: int, module: str) -> AbstractContextManager[Part]:
    folder = scratch(f"bench-{name}")
    folder.chmod(0o755)  # the workers are somebody else
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    file = folder / "apache.conf"
    file.write_text(
        _APACHE.format(folder=folder, port=port, user=user, modules=_MODULES, module=module, origin=world.origin.port)
    )
    return parts.running(name, ["apache2", "-DFOREGROUND", "-f", str(file)], port, PROXY_CORE)


def _tls(idp: Part) -> AbstractContextManager[Part]:
    """Run TLS in front of the identity provider, with a certificate nobody vouches for."""
    folder, port = scratch("bench-tls"), free_port()
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 -keyout key.pem -out certificate.pem"
    subprocess.run(make.split(), cwd=folder, check=True, capture_output=True)
    return parts.nginx("tls", _TLS.format(port=port, folder=folder, idp=idp.port), port, LOAD_CORE)
