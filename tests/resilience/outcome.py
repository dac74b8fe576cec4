"""What a scenario did to the requests, jobs and data sets of the load that ran beside it."""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, replace

from tests.resilience.audit import Audit, audit
from tests.resilience.faults import Injector, explanation
from tests.resilience.load import Load

REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


@dataclass(frozen=True)
class Outcome:
    """A scenario and what was seen.

    Attributes:
        explain: why a failed request may have failed: ``in flight``, ``refused`` or ``none``.
    """

    name: str
    samples: list
    faults: list
    audit: Audit
    explain: object

    @property
    def right(self):
        return sum(sample.outcome == "right" for sample in self.samples)

    @property
    def wrong(self):
        return sum(sample.outcome == "wrong" for sample in self.samples) + len(self.audit.wrong)

    def reasons(self):
        """How many requests failed, by explanation."""
        return Counter(self.explain(sample) for sample in self.samples if sample.outcome == "failed")

    def broken(self):
        """What was promised and not kept, in words; empty when all is well."""
        said = [f"never recovered: {fault.role}" for fault in self.faults if fault.back_at is None]
        said += self.audit.broken
        for sample in self.samples:
            if sample.outcome == "wrong" or (sample.outcome == "failed" and self.explain(sample) == "none"):
                took = sample.ended - sample.started
                said.append(f"{sample.kind} {sample.outcome} after {took:.1f} s: {sample.why} {sample.text}")
        return said


def under_load(stack, asked, name, faults, *, seed=0, explain=None, excuse=None, **options):
    """Do ``faults`` (a coroutine function that gets the injector) under load, then audit.

    Args:
        explain: why a request may fail; by default the kills do.
        excuse: whether a job may have failed, by its record.
        options: of the load.
    """
    questions, jobs = asked
    load = Load(stack.base_url, questions, jobs, seed=seed, **options)
    probe = next(question for question in questions if question.kind == "embeddings")
    injector = Injector(stack, probe, seed)

    async def run():
        async with load.running():
            await faults(injector)

    asyncio.run(run())
    samples = _with_logs(stack, load.samples)
    with stack.client() as api:
        found = audit(api, load, injector.deaths_of, excuse or (lambda job: False))
    explain = explain or (lambda sample: explanation(sample, injector.faults))
    return Outcome(name, samples, injector.faults, found, explain)


def _with_logs(stack, samples):
    """Failed requests with what the gateway's log says of them, as the log goes away with the stack."""
    lines = (stack.home / "logs" / "gateway.log").read_text(errors="replace").splitlines()

    def explained(sample):
        named = REQUEST_ID.search(sample.text)
        if sample.why != "500" or named is None:
            return sample
        return replace(sample, text=" | ".join(line[:400] for line in lines if named[0] in line))

    return [explained(sample) for sample in samples]
