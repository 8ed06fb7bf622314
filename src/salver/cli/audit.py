"""`salver audit` with `verify`, `head` and `prove`: the journal, and what proves that it is whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from salver.cli.context import Context, Exit
from salver.cli.files import read_file
from salver.cli.tables import date, table
from salver.cli.times import moment
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.security.keys import AuditPublicKey
    from salver.storage.journal import JournalQuery, JournalRecord
    from salver.storage.tree_heads import TreeHead
    from salver.storage.verification import ChainCheck

__all__ = ["add_to"]

_MOST: Final = 1_000_000


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(
        help="Show who changed what and why, and check it.",
        invoke_without_command=True,
        epilog="Example: salver audit --actor ann --since 2026-03-01 --last",
    )
    group.callback()(show)
    group.command("verify", epilog="Example: salver audit verify --heads heads.jsonl --json")(verify)
    group.command("head", epilog="Example: salver audit head --json >> /mnt/elsewhere/heads.jsonl")(head)
    group.command("rotate", epilog="Example: salver audit rotate")(rotate)
    group.command("prove", epilog="Example: salver audit prove 17 --json > proof.json")(prove)
    app.add_typer(group, name="audit")


def show(
    context: typer.Context,
    limit: int = typer.Option(100, min=1, max=_MOST, help="Records to show at most."),
    after: int = typer.Option(0, min=0, help="Only records behind this number (seq)."),
    actor: str | None = typer.Option(None, help="Only what this one did."),
    action: str | None = typer.Option(None, help="Only actions of this name, such as deploy."),
    subject: str | None = typer.Option(None, help="Only about this endpoint, NAME@VERSION, or model and its versions."),
    since: str | None = typer.Option(None, help="Only from then on: a date, a time with zone, or '3 days ago'."),
    until: str | None = typer.Option(None, help="Only before then; a date stands for its end."),
    last: bool = typer.Option(False, "--last", help="The newest first."),
    lines: bool = typer.Option(False, "--lines", help="Print each record as one line of JSON."),
) -> None:
    """Show who changed what, oldest first. The commands below check it."""
    if context.invoked_subcommand is not None:
        return
    from salver.clock import SYSTEM_CLOCK
    from salver.storage.journal import JournalQuery

    here: Context = context.obj
    now_s = SYSTEM_CLOCK.wall_s()
    query = JournalQuery(
        limit=limit,
        after=after,
        actor=actor,
        action=action,
        subject=subject,
        since_s=None if since is None else moment(since, now_s).since_s,
        until_s=None if until is None else moment(until, now_s).until_s,
        last=last,
    )
    with here.administration() as admin:
        if lines:
            for record in _found(admin, query):
                sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
            return
        records = tuple(_found(admin, query))
    with_why = any(record.why for record in records)
    head_row = ["seq", "when", "who", "what", "on", *(["why"] if with_why else [])]
    rows = [
        [str(row.seq), date(row.at_s), row.actor, row.action, _subject(row), *([row.why] if with_why else [])]
        for row in records
    ]
    here.say(records, table(head_row, rows) or "no records")
    if len(records) == limit:
        here.note(
            f"note: these are the {'last' if last else 'first'} {limit}; there may be more: --limit, --after, --last"
        )


def _found(admin: Administration, query: JournalQuery) -> Iterator[JournalRecord]:
    """All records that are asked for, page by page."""
    from salver.control.actions.audit import RECORDS
    from salver.storage.journal import MOST_RECORDS

    left = query.limit
    while left:
        page = admin.do(RECORDS, msgspec.structs.replace(query, limit=min(left, MOST_RECORDS)))
        yield from page
        left -= len(page)
        if len(page) < MOST_RECORDS:
            return
        edge = page[-1].seq
        query = msgspec.structs.replace(query, **{"before" if query.last else "after": edge})


def _subject(row: JournalRecord) -> str:
    """What was changed; for a deployment also the version that has served since, and the settings that differ."""
    from salver.cli.settings import describe_change, describe_settings

    after = row.details.get("after") if row.action == "deploy" else None
    if not isinstance(after, dict):
        return row.subject
    before = row.details.get("before")
    changed = describe_change(before, after) if isinstance(before, dict) else describe_settings(after)
    return f"{row.subject} -> {after['model']}@{after['version']}" + (f" ({changed})" if changed else "")


def verify(
    context: typer.Context,
    heads: Path | None = typer.Option(None, help="File with tree heads that were kept elsewhere, or one of them."),
    proof: Path | None = typer.Option(None, help="Check only this proof of `salver audit prove`; needs no journal."),
    database: Path | None = typer.Option(None, help="Check this copy of a database (SQLite) in place of the home's."),
    public_key: list[Path] = typer.Option([], help="Believe this key (PEM) and not the home's own. Repeat for more."),
) -> None:
    """Check that no record was changed, removed or moved.

    Exit code: 0 all is whole, 1 a record is not, which is named, 2 there is no signed tree head to tell by.
    """
    here: Context = context.obj
    if proof is not None:
        _verify_proof(here, proof, public_key)
        return
    kept = () if heads is None else _heads(heads)
    if database is not None:
        check = _verify_copy(here, database, kept, public_key)
    else:
        with here.administration() as admin:
            check = _verify(admin, kept, public_key)
    text = f"{check.records} records, chain is whole; signed tree heads compared: {check.heads}"
    here.say(check, text if check.ok else f"record {check.bad_seq}: {check.reason}")
    if not check.ok:
        raise Exit(1)
    if check.reason:
        here.note(f"warning: {check.reason}; `salver audit head` signs one")
        raise Exit(2)


def _verify(admin: Administration, kept: tuple[TreeHead, ...], pems: list[Path]) -> ChainCheck:
    from salver.control.action import Nothing
    from salver.control.actions.audit import MOST_HEADS, VERIFY, VERIFY_AGAINST, Against

    if not kept and not pems:
        return admin.do(VERIFY, Nothing())
    # Each head is about all records before it, so fewer lose nothing but how near they are to what is wrong.
    step = -(-len(kept) // MOST_HEADS) or 1
    ordered = sorted(kept, key=lambda each: each.size, reverse=True)
    pinned = tuple(key.pem.decode() for key in _pinned(pems))
    return admin.do(VERIFY_AGAINST, Against(tuple(ordered[::step]), pinned))


def _verify_copy(here: Context, path: Path, kept: tuple[TreeHead, ...], pems: list[Path]) -> ChainCheck:
    from salver.registry.audit_keys import believed_keys
    from salver.storage.database_copy import read_copy
    from salver.storage.verification import verify_journal

    known = _known(here, pems)
    with read_copy(path) as connection:
        return verify_journal(connection, believed_keys(connection, known), kept)


def _verify_proof(here: Context, path: Path, pems: list[Path]) -> None:
    from salver.registry.audit import Inclusion, proof_flaw
    from salver.registry.audit_keys import by_fingerprint

    try:
        found = msgspec.json.decode(read_file(path), type=Inclusion)
    except msgspec.DecodeError as error:
        raise SalverError("INVALID_ARTIFACT", f"{path.name} is no proof: {error}", "see `salver audit prove`") from None
    flaw = proof_flaw(found, by_fingerprint(_known(here, pems)))
    document: dict[str, Any] = {"ok": not flaw, "seq": found.seq, "size": found.head.size, "reason": flaw}
    here.say(document, flaw or f"record {found.seq} is one of the {found.head.size} that were signed: {found.record}")
    if flaw:
        raise Exit(1)


def _known(here: Context, pems: list[Path]) -> list[AuditPublicKey]:
    """The keys in the given files; without any, the one with which the home signs its journal."""
    from salver.control.action import Nothing
    from salver.control.actions.keys import KEYS
    from salver.security.keys import AuditPublicKey

    if pems:
        return _pinned(pems)
    with here.administration() as admin:
        return [
            AuditPublicKey.parse(each.pem.encode(), each.use)
            for each in admin.do(KEYS, Nothing())
            if each.use == "audit"
        ]


def _pinned(pems: list[Path]) -> list[AuditPublicKey]:
    from salver.security.keys import AuditPublicKey

    return [AuditPublicKey.parse(read_file(path), path.name) for path in pems]


def _heads(path: Path) -> tuple[TreeHead, ...]:
    from salver.storage.tree_heads import parse_heads

    found = parse_heads(read_file(path), path.name)
    if not found:
        raise SalverError("INVALID_ARTIFACT", f"{path.name} has no tree head in it", "see `salver audit head --json`")
    return found


def head(context: typer.Context) -> None:
    """Sign what the journal comes to, and print it.

    Keep it where nobody can write who can write this home: `salver audit verify --heads` compares it.
    """
    from salver.control.action import Nothing
    from salver.control.actions.audit import SIGN

    here: Context = context.obj
    with here.administration() as admin:
        newest = admin.do(SIGN, Nothing())
    here.say(
        newest,
        f"records    {newest.size}\nroot       {newest.root}\nsigned     {date(newest.at_s)} UTC\n"
        f"key        {newest.key_id}\nsignature  {newest.signature}",
    )


def rotate(context: typer.Context) -> None:
    """Sign the journal with a new key from now on. Both keys sign that it follows the old one."""
    from salver.control.action import Nothing
    from salver.control.actions.audit import ROTATE_AUDIT_KEY

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(ROTATE_AUDIT_KEY, Nothing())
    here.say(done, f"signs the journal now  {done.after}\nfollows                {done.before}")


def prove(context: typer.Context, seq: int = typer.Argument(min=1, help="The number of a record.")) -> None:
    """Prove that a record is in the journal.

    The proof can be checked without this home: `salver audit verify --proof`.
    """
    from salver.control.actions.audit import PROVE, OfRecord

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(PROVE, OfRecord(seq))
    # A document either way: it is for a file.
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
