"""``deepnight jobs``: a small client of a running service's job routes."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any

import typer

from service.cli.output import Failure, Json, load_settings, print_json, print_table, progress

app = typer.Typer(
    help="Look at and cancel the jobs of a running service.",
    epilog="DEEPNIGHT_URL names the service (default: this machine's), DEEPNIGHT_API_KEY holds the key.",
    no_args_is_help=True,
)
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `jobs list` shows it: job_...")]
FINAL = ("succeeded", "failed", "cancelled")


@app.command("list")
def list_jobs(
    status: Annotated[
        str | None, typer.Option(help="Only queued, running, succeeded, failed or cancelled ones.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 20,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    wanted = {"status": status, "kind": kind, "limit": limit}
    jobs = call("GET", "/v1/jobs", {name: value for name, value in wanted.items() if value is not None})["data"]
    if json:
        print_json(jobs)
        return
    rows = [(job["id"], job["kind"], job["status"], _progress(job), _age(job["created_at"])) for job in jobs]
    print_table(["id", "kind", "status", "progress", "created"], rows)


@app.command()
def show(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    json: Json = False,
) -> None:
    """Show one job; exit code 1 when it has failed."""
    job = call("GET", f"/v1/jobs/{job_id}")
    if watch and job["status"] not in FINAL:
        with progress(job["kind"]) as report:
            while job["status"] not in FINAL:
                state = job.get("progress") or {}
                report(state.get("fraction") or 0.0, state.get("stage") or job["status"], state.get("message") or "")
                job = call("GET", f"/v1/jobs/{job_id}", {"wait": 2})
    if json:
        print_json(job)
    else:
        _print(job)
    if job["status"] == "failed":
        raise typer.Exit(1)


@app.command()
def cancel(job_id: JobId, json: Json = False) -> None:
    """Cancel a job; one that has ended stays as it is."""
    job = call("POST", f"/v1/jobs/{job_id}/cancel")
    if json:
        print_json(job)
    else:
        print(f"{job_id} is {job['status']}" + ("" if job["status"] in FINAL else ", and will be cancelled"))


def call(method: str, path: str, query: dict[str, Any] | None = None) -> Any:
    """One request to the running service, its JSON answer.

    Raises:
        Failure: nobody answers, or the answer is a problem; says which.
    """
    import httpx

    settings = load_settings()
    base = os.environ.get("DEEPNIGHT_URL") or f"http://{settings.host}:{settings.port}"
    key = os.environ.get("DEEPNIGHT_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(method, base + path, params=query, headers=headers, timeout=30)
        body = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Failure(f"{base} does not answer as Deepnight ({error}): is it running? DEEPNIGHT_URL names it") from None
    if answer.is_success:
        return body
    raise Failure(f"{body.get('title', answer.reason_phrase)}: {body.get('detail', '')}".rstrip(": "))


def _print(job: dict[str, Any]) -> None:
    lines = {
        "id": job["id"],
        "kind": job["kind"],
        "model": job.get("model"),
        "dataset": job.get("dataset"),
        "status": job["status"],
        "progress": _progress(job),
        "attempts": job.get("attempts"),
        "created": _age(job["created_at"]),
        "error": (job.get("error") or {}).get("detail"),
    }
    for name, value in lines.items():
        if value not in (None, ""):
            print(f"{name:<9} {value}")
    for artifact in job.get("artifacts", []):
        print(f"artifact  {artifact['name']} ({artifact['bytes']} bytes) {artifact['url']}")


def _progress(job: dict[str, Any]) -> str:
    state = job.get("progress") or {}
    if job["status"] == "queued" or not state:
        return ""
    left = state.get("eta_seconds")
    remaining = f", {left:.0f} s left" if left is not None and job["status"] == "running" else ""
    return f"{state.get('fraction', 0.0):.0%} {state.get('stage', '')}{remaining}"


def _age(seconds: float) -> str:
    age = int(time.time() - seconds)
    size, unit = next(((s, u) for s, u in ((86400, "d"), (3600, "h"), (60, "min")) if age >= s), (1, "s"))
    return f"{age // size} {unit} ago"
