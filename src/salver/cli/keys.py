"""`salver keys`: what this home signs with, and whose signatures it takes."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.tables import table
from salver.protocol.errors import SalverError

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    keys = typer.Typer(help="Show, rotate, trust and distrust keys.", no_args_is_help=True)
    keys.command("show", epilog="Example: salver keys show --pem > signing.pub")(show)
    keys.command("rotate", epilog="Example: salver keys rotate")(rotate)
    keys.command("trust", epilog="Example: salver keys trust vision-team.pub")(trust)
    keys.command("distrust", epilog="Example: salver keys distrust 9f86d081884c7d65")(distrust)
    app.add_typer(keys, name="keys")


def show(
    context: typer.Context,
    pem: bool = typer.Option(False, "--pem", help="Print the public key that versions are signed with, as PEM."),
    audit: bool = typer.Option(False, "--audit", help="With --pem: the one that the journal is signed with."),
) -> None:
    """Show the keys of the home: fingerprints, and what each is for. No private key is ever shown."""
    from salver.control.action import Nothing
    from salver.control.actions.keys import KEYS

    here: Context = context.obj
    with here.administration(make_home=True) as admin:
        found = admin.do(KEYS, Nothing())
    if pem or audit:
        wanted = next(each for each in found if each.use == ("audit" if audit else "signs"))
        here.say(wanted, wanted.pem)
        return
    rows = [[each.key_id, each.use, each.name or "-"] for each in found]
    here.say(found, table(["fingerprint", "use", "file in trust/"], rows))


def rotate(context: typer.Context) -> None:
    """Sign with a new key from now on. What the old one has signed stays good."""
    from salver.control.action import Nothing
    from salver.control.actions.keys import ROTATE_KEY

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(ROTATE_KEY, Nothing())
    here.say(
        done,
        f"signs now      {done.after}\n"
        f"trusted still  {done.before}\n"
        f"  if that key was lost to somebody: salver keys distrust {done.before[:16]}",
    )


def trust(
    context: typer.Context,
    file: Path = typer.Argument(help="A public key, as PEM: ECDSA on the curve P-256."),
    name: str | None = typer.Option(None, help="What to call it; by default the file's name."),
) -> None:
    """Take versions that this key has signed. See `salver register --signature`."""
    from salver.control.actions.keys import TRUST_KEY, KeyFile

    here: Context = context.obj
    chosen = name or re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("._-")
    try:
        text = read_file(file).decode()[: 64 * 1024]
    except UnicodeDecodeError:
        raise SalverError("INVALID_ARTIFACT", f"{file.name!r} is no key that can be read", "give a PEM file") from None
    with here.administration(make_home=True) as admin:
        trusted = admin.do(TRUST_KEY, KeyFile(text, chosen))
    here.say(trusted, f"trusted  {trusted.key_id}  ({trusted.name})")


def distrust(
    context: typer.Context,
    key_id: str = typer.Argument(metavar="FINGERPRINT", help="Of the key, or its first characters, eight at least."),
) -> None:
    """Load nothing any more that a key has signed. What is loaded answers until it is replaced."""
    from salver.control.actions.keys import DISTRUST_KEY, KeyNamed

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(DISTRUST_KEY, KeyNamed(key_id))
    here.say(done, f"distrusted  {done.key_id}")
