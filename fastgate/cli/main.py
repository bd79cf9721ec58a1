"""The `fastgate` command (also `python -m fastgate`)."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from typing import Annotated, NoReturn

import typer

from fastgate import __version__
from fastgate.cli import connecting, explaining, revoking
from fastgate.cli.output import give_up, printable, show, show_problems, table, verdict, warn
from fastgate.cli.routes import route_table
from fastgate.cli.tokens import read_token
from fastgate.config.addresses import url
from fastgate.config.advice import advice
from fastgate.config.compile import compile_snapshot
from fastgate.config.load import Config, from_environment, load
from fastgate.config.reference import json_schema
from fastgate.errors import ConfigError, FastgateError
from fastgate.model import Snapshot

app = typer.Typer(
    help="An OAuth 2.0 token introspection gateway: asks once, remembers safely, streams the rest.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables would show tokens and secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[str, typer.Option("--config", "-c", metavar="FILE", help="The configuration file.")]
TokenFile = Annotated[str | None, typer.Option(metavar="FILE", help="Read the token from here ('-': standard input).")]


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="fastgate")


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(f"fastgate {__version__} (aiohttp {installed_version('aiohttp')})")
        raise typer.Exit


@app.callback()
def fastgate(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Keep the options of `fastgate` itself."""
    del version


def wrong(message: str, option: str) -> NoReturn:
    """A wrong command line: usage and status 2."""
    raise typer.BadParameter(message, param_hint=option)


@contextmanager
def told() -> Iterator[None]:
    """Whatever fastgate raises on purpose ends the command with its sentences and status 1."""
    try:
        yield
    except ConfigError as error:
        show_problems(error)
        raise typer.Exit(1) from None
    except FastgateError as error:
        give_up(str(error))


def _read(file: str) -> tuple[Config, Snapshot]:
    config = load(file, os.environ)
    return config, compile_snapshot(config)


@app.command()
def run(
    config: Annotated[
        str | None, typer.Option("--config", "-c", metavar="FILE", help="The configuration file.")
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Without a file: protect this service; ISSUER, CLIENT_ID, CLIENT_SECRET are read."
        ),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Without a file: where to listen. [127.0.0.1:8000]")
    ] = None,
) -> None:
    """Run the gateway until SIGTERM; SIGHUP reads the configuration again, SIGUSR2 replaces the workers."""
    if config is not None and (upstream is not None or listen is not None):
        wrong("the file says this already; use either the file or the options", "--upstream / --listen")
    if config is None and upstream is None:
        wrong(
            "needed: either -c FILE, or --upstream URL with ISSUER, CLIENT_ID and CLIENT_SECRET set", "-c / --upstream"
        )

    def read() -> Config:
        if config is not None:
            return load(config, os.environ)
        return from_environment(os.environ, upstream or "", listen)

    with told():
        raise typer.Exit(_served(read))


def _served(read: Callable[[], Config]) -> int:
    from fastgate.supervisor.zygote import Zygote  # noqa: PLC0415 - only this command needs it

    # The process that workers come from imports as much as this one does: both at the same time.
    zygote = Zygote()
    try:
        from fastgate.supervisor.run import serve  # noqa: PLC0415 - only this command needs the event loop and aiohttp

        first = read()
        warn(first.file, advice(first))
        return serve(read, zygote)
    finally:
        zygote.abandon()


@app.command()
def check(
    config: ConfigFile,
    *,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Also try discovery, the client credentials, Redis and every upstream."),
    ] = False,
) -> None:
    """Validate a configuration file; every problem at once."""
    with told():
        read, snapshot = _read(config)
    warn(read.file, advice(read))
    counts = (("identity provider", snapshot.providers), ("service", snapshot.services), ("route", snapshot.routes))
    words = ", ".join(f"{len(things)} {word}{'' if len(things) == 1 else 's'}" for word, things in counts)
    typer.echo(f"{config}: ok ({words})")
    if connect and not _connected(snapshot):
        raise typer.Exit(1)


def _connected(snapshot: Snapshot) -> bool:
    with _quiet():
        tried = asyncio.run(connecting.findings(snapshot))
    rows = table("", "what", "")
    rows.show_header = False
    for subject, trouble, advice_ in tried:
        rows.add_row(verdict(not trouble), printable(subject), printable(trouble or advice_))
    show(rows)
    return not any(each.trouble for each in tried)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the event log: the command says the same in its own words."""
    import logging  # noqa: PLC0415

    from fastgate.control import logging as event_log  # noqa: PLC0415

    event_log.configure("console", level=logging.CRITICAL)
    try:
        yield
    finally:
        event_log.close()


@app.command()
def explain(
    config: ConfigFile,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="Such as GET.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Such as /orders/1?full=true.")],
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header of the request.")
    ] = None,
    token_file: TokenFile = None,
) -> None:
    """Say step by step what would become of a request. The token comes from a file or standard input."""
    headers = [_header(line) for line in header or ()]
    with told():
        _, snapshot = _read(config)
        token = read_token(token_file)
        with _quiet():
            explanation = asyncio.run(explaining.explain(snapshot, method, path, headers, token))
    rows = table("step", "", "what")
    for step, ok, detail in explanation.steps:
        rows.add_row(step, "" if ok is None else verdict(ok), printable(detail))
    show(rows)
    if explanation.claims is not None:
        typer.echo(f"\nclaims {explaining.claims_text(explanation.claims)}")
    if not explanation.known:
        raise typer.Exit(1)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        wrong("must be written 'Name: value'", "-H")
    scheme = value.split(maxsplit=1)[0].lower() if value.strip() else ""
    if name.lower() == "authorization" and scheme in {"bearer", "dpop"}:
        wrong("give the token with --token-file or on standard input: a command line is visible to everybody", "-H")
    return name, value.strip()


@app.command()
def routes(config: ConfigFile) -> None:
    """Print the compiled route table."""
    with told():
        _, snapshot = _read(config)
    show(route_table(snapshot))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Walk through it, print it, and end.")] = False,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the gateway listens.")] = "127.0.0.1:8000",
) -> None:
    """See it work: an identity provider, an echo service and the gateway, in memory."""
    from fastgate.demo.run import run_demo  # noqa: PLC0415 - servers that the other commands do not need

    with told():
        status = run_demo(once=once, listen=listen)
    raise typer.Exit(status)


@app.command()
def revoke(
    *,
    token_file: TokenFile = None,
    sub: Annotated[str | None, typer.Option(metavar="SUBJECT", help="All tokens of this subject.")] = None,
    sid: Annotated[str | None, typer.Option(metavar="SESSION", help="All tokens of this session.")] = None,
    client_id: Annotated[str | None, typer.Option(metavar="CLIENT", help="All tokens of this client.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every token issued until now.")] = False,
    admin: Annotated[str, typer.Option(metavar="URL", help="The gateway's admin listener.")] = "http://127.0.0.1:8001",
    admin_token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Read the admin token from here.")
    ] = None,
    admin_ca_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificates (PEM) to trust for an https admin listener.")
    ] = None,
) -> None:
    """Revoke by token (a file or standard input), subject, session, client, or all."""
    given = {"sub": sub, "sid": sid, "client_id": client_id, "all": everything or None}
    what = {name: value for name, value in given.items() if value is not None}
    if len(what) + (token_file is not None) > 1:
        wrong("give exactly one", "--token-file / --sub / --sid / --client-id / --all")
    if "" in what.values():
        wrong("must not be empty", "--sub / --sid / --client-id")
    try:
        url(admin)
    except ValueError as error:
        wrong(str(error), "--admin")
    if not what:
        token = read_token(token_file)
        if token is None:
            wrong(
                "needed: a token on standard input or in --token-file, or one of the others",
                "--token-file / --sub / --sid / --client-id / --all",
            )
        what = {"token": token}
    admin_token = read_token(admin_token_file) if admin_token_file is not None else None
    with told():
        revoked = revoking.revoke(admin, what, admin_token=admin_token, ca_file=admin_ca_file)
    typer.echo(f"revoked {revoked}")
