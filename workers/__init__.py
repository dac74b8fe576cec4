"""The queue side: durable jobs, the worker and the process that runs one job."""
