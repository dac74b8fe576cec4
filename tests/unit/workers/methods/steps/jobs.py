import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np

from models.core.method import MethodError


def note(trace, *words):
    """One line on disk, whatever happens to Redis or to this process afterwards."""
    if trace:
        with Path(trace).open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")
            file.flush()
            os.fsync(file.fileno())


def steps(job, parameters):
    state = job.load_state()
    first = int(state[1]["step"]) if state else 0
    note(parameters.trace, "start", os.getpid(), first)
    for step in range(first, parameters.steps):
        time.sleep(parameters.pause)
        note(parameters.trace, "step", os.getpid(), step)
        job.metric("step", step, step)
        job.save_state({"done": np.arange(step + 1)}, {"step": step + 1})
        job.progress((step + 1) / parameters.steps, "steps", f"step {step}")
    note(parameters.trace, "end", os.getpid(), parameters.steps)
    return {"object": "steps", "steps": parameters.steps}


def native(job, parameters):
    note(parameters.trace, "start", os.getpid(), 0)
    digest = hashlib.pbkdf2_hmac("sha256", b"password", b"salt", parameters.rounds)
    note(parameters.trace, "end", os.getpid(), 0)
    return {"object": "native", "digest": digest.hex()}


def outcome(job, parameters):
    note(parameters.trace, "start", os.getpid(), 0)
    job.log("about to end")
    if parameters.how == "user-error":
        raise MethodError("the data set has one class only")
    if parameters.how == "bug":
        raise RuntimeError("secret detail of ours in /etc/deepnight")
    if parameters.how == "killed":
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    if parameters.how == "no-dataset":
        job.dataset("ds_" + "0" * 32)
    if parameters.how == "large-result":
        return {"object": "outcome", "value": "x" * 1_000_000}
    return {"object": "outcome", "value": float("nan")}


def talk(job, parameters):
    for line in range(parameters.lines):
        job.log(f"line {line}")
        time.sleep(parameters.pause)
    return {"object": "talk"}


def derive(job, parameters):
    dataset = job.dataset(job.dataset_id)
    path, format_ = job.dataset_file(job.dataset_id)
    job.artifact("note.txt", "text/plain").write_text(parameters.note)
    job.artifact("never-written.txt", "text/plain")
    half = dataset.select(np.arange(len(dataset) // 2))
    cleaned = job.scratch / "half.npz"
    np.savez(cleaned, x=half.vectors(), y=half.require_labels())
    return {
        "object": "derive",
        "samples": len(dataset),
        "format": format_,
        "bytes": path.stat().st_size,
        "dataset": job.register_dataset(cleaned, "half"),
        "device": job.device,
        "seed": job.seed,
    }
