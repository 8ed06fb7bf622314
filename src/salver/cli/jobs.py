"""`salver jobs list`, `show` and `cancel`."""

from __future__ import annotations

import typer

from salver.cli.context import Context
from salver.cli.tables import date, table
from salver.protocol.jobs import JobState, JobView

__all__ = ["add_to"]

_STATES = ", ".join(state.word for state in JobState)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    jobs = typer.Typer(help="List, show and cancel jobs.", no_args_is_help=True)
    jobs.command("list", epilog="Example: salver jobs list --state failed")(list_jobs)
    jobs.command("show", epilog="Example: salver jobs show 0193a5c27b1f4e0c8d6f3b2a1c9e7d54")(show)
    jobs.command("cancel", epilog="Example: salver jobs cancel 0193a5c27b1f4e0c8d6f3b2a1c9e7d54")(cancel)
    app.add_typer(jobs, name="jobs")


def list_jobs(
    context: typer.Context,
    endpoint: str | None = typer.Option(None, help="Only jobs of this endpoint."),
    state: str | None = typer.Option(None, help=f"Only jobs in this state: {_STATES}."),
    limit: int = typer.Option(100, min=1, max=1000, help="Jobs to show at most."),
    after: str | None = typer.Option(None, help="Only jobs older than the one with this id."),
) -> None:
    """List everybody's jobs, newest first."""
    from salver.control.actions.jobs import JOBS, JobsAsked

    here: Context = context.obj
    with here.administration() as admin:
        page = admin.do(JOBS, JobsAsked(endpoint, state, limit, after))
    rows = [
        [job.id, job.endpoint, job.tenant or "-", job.state, str(job.attempts), date(job.accepted_s), _problem(job)]
        for job in page.jobs
    ]
    head = ["id", "endpoint", "tenant", "state", "attempts", "accepted", "error"]
    here.say(page, table(head, rows) or "no jobs")
    if page.next:
        here.note(f"there are more: --after {page.next}")


def _problem(job: JobView) -> str:
    return job.error.code if job.error else ""


def show(
    context: typer.Context, job_id: str = typer.Argument(metavar="ID", help="The id that submitting it gave.")
) -> None:
    """Show one job."""
    from salver.control.actions.jobs import JOB, OfJob

    here: Context = context.obj
    with here.administration() as admin:
        job = admin.do(JOB, OfJob(job_id))
    here.say(job, _described(job))


def _described(job: JobView) -> str:
    lines = [
        ("id", job.id),
        ("state", job.state),
        ("endpoint", f"{job.endpoint}{f' version {job.version}' if job.version else ''}"),
        ("tenant", job.tenant or "none"),
        ("attempts", str(job.attempts)),
        ("accepted", date(job.accepted_s)),
        ("started", date(job.started_s) if job.started_s else ""),
        ("ended", date(job.ended_s) if job.ended_s else ""),
        ("expires", date(job.expires_s)),
        ("error", f"{job.error.code}: {job.error.message}" if job.error else ""),
    ]
    if job.webhook is not None:
        hook = job.webhook
        lines.append(
            ("webhook", f"{hook.name} {hook.state}, {hook.attempts} tries{f', {hook.note}' if hook.note else ''}")
        )
    return "\n".join(f"{name:<10}{value}" for name, value in lines if value)


def cancel(
    context: typer.Context, job_id: str = typer.Argument(metavar="ID", help="The id that submitting it gave.")
) -> None:
    """End a job that has not ended."""
    from salver.control.actions.jobs import CANCEL_JOB, OfJob

    here: Context = context.obj
    with here.administration() as admin:
        job = admin.do(CANCEL_JOB, OfJob(job_id))
    here.say(job, f"job {job.id} is {job.state}")
