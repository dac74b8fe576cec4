"""Kinds of job that every method has. A kind is a module of this package, named in :data:`workers.kinds.BUILTIN`.

Such a module has two functions and imports torch in neither of its top-level imports:

- ``validate(registry, spec, dataset_kind) -> JobSpec`` checks a request and fills in defaults;
- ``run(job, spec) -> dict`` does the work in the job process; its result is JSON-serialisable.
"""
