"""What Grafana's dashboards show. ``scripts/dashboards.py`` writes them."""

from __future__ import annotations

from scripts.panel import REPLICA_MEMORY, USERS, Panel, hourly, mean, quantile, rate, share_of

OVERVIEW = (
    Panel(
        "Is everything there?",
        "short",
        (("min by (dependency) (deepnight_dependency_up)", "{{dependency}}"),),
        "1: it answers the gateway. Serve and store take the service down, Redis and workers only jobs.",
        stat=True,
    ),
    Panel(
        "Error budget of 30 days that is left, at the rate of the last 3 days",
        "percentunit",
        (("1 - deepnight:http_errors:ratio_rate3d / 0.005", "errors (objective 99.5%)"),),
        "Negative: if it went on like this, the objective of the month would be missed.",
        stat=True,
    ),
    Panel(
        "Alerts", "short", (('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),), "Firing now.", stat=True
    ),
    Panel(
        "Requests",
        "reqps",
        ((rate("deepnight_http_requests_total", "route", USERS), "{{route}}"),),
        "By route. A route that stops being asked is a client's fault, or a balancer's.",
    ),
    Panel(
        "Errors",
        "percentunit",
        (
            (
                share_of("5.."),
                "5xx",
            ),
            (
                share_of("4.."),
                "4xx",
            ),
        ),
        "5xx are ours and spend the error budget, 4xx are the clients'.",
    ),
    Panel(
        "Answers by status",
        "reqps",
        ((rate("deepnight_http_requests_total", "status", USERS), "{{status}}"),),
        "503: overloaded or a part is down; 504: past the deadline; 429: a key's limit; 499: the client left.",
    ),
    Panel(
        "Duration",
        "s",
        tuple(
            (quantile(share, "deepnight_http_request_duration_seconds", "job", USERS), name)
            for share, name in ((0.5, "median"), (0.95, "95th"), (0.99, "99th"))
        ),
        "From a request's first byte to its answer's last. p99 far above p50: something queues.",
    ),
    Panel(
        "95th percentile by route",
        "s",
        ((quantile(0.95, "deepnight_http_request_duration_seconds", "route", USERS), "{{route}}"),),
        "Generations take longer than embeddings by nature; a change is what matters.",
    ),
    Panel(
        "In flight",
        "short",
        (("sum(deepnight_http_requests_in_flight)", "requests"),),
        "With the scrape itself. Grows without end when answers come slower than requests.",
    ),
)

MODELS = (
    Panel(
        "Inputs predicted",
        "cps",
        ((rate("deepnight_inference_requests_total", "model"), "{{model}}"),),
        "Inputs, not requests: one request may hold many.",
    ),
    Panel(
        "Inputs that were not predicted",
        "cps",
        (
            (
                'sum by (model, outcome) (rate(deepnight_inference_requests_total{outcome!="ok"}[$__rate_interval])) '
                'or label_replace(vector(0), "outcome", "none", "", "")',
                "{{model}} {{outcome}}",
            ),
        ),
        "failed: a fault of ours; refused: the method cannot take the input; overloaded, deadline: too much load.",
    ),
    Panel(
        "95th percentile from coalescer to outputs",
        "s",
        ((quantile(0.95, "deepnight_inference_duration_seconds", "model"), "{{model}}"),),
        "Waiting, travelling and computing.",
    ),
    Panel(
        "95th percentile of a replica's computing",
        "s",
        ((quantile(0.95, "deepnight_inference_compute_seconds", "model"), "{{model}}"),),
        "Of one call, which holds a batch. The rest of the graph beside it is waiting and travelling.",
    ),
    Panel(
        "Inputs in one call",
        "short",
        (
            (
                "sum by (model) (rate(deepnight_inference_batch_size_sum[$__rate_interval])) "
                "/ sum by (model) (rate(deepnight_inference_batch_size_count[$__rate_interval]))",
                "{{model}}",
            ),
        ),
        "Grows with load: coalescing at work. 1 under little load is right.",
    ),
    Panel(
        "Inputs waiting",
        "short",
        (("sum by (model) (deepnight_inference_waiting)", "{{model}}"),),
        "At DEEPNIGHT_QUEUE_LIMIT (1024) a gateway answers 503.",
    ),
    Panel(
        "Models by state",
        "short",
        (("sum by (state) (deepnight_model_state)", "{{state}}"),),
        "failed: its last call could not load it.",
    ),
    Panel(
        "Loads of models",
        "short",
        ((hourly("deepnight_model_load_seconds_count", "model"), "{{model}}"),),
        "In the last hour. The same model again and again: replicas die, or more models than they may keep.",
    ),
    Panel(
        "Seconds to load and warm",
        "s",
        (
            (
                mean("deepnight_model_load_seconds", "model"),
                "{{model}}",
            ),
        ),
        "What the first request of a cold model waits for.",
    ),
)

JOBS = (
    Panel(
        "Workers",
        "short",
        (("sum by (state) (deepnight_workers)", "{{state}}"),),
        "With a heartbeat in the last 30 seconds. All busy and a growing queue: add workers.",
    ),
    Panel(
        "Jobs waiting and running",
        "short",
        (
            ('sum(deepnight_jobs{status="queued"}) or vector(0)', "queued"),
            ('sum(deepnight_jobs{status="running"}) or vector(0)', "running"),
        ),
        "Each worker runs one at a time.",
    ),
    Panel(
        "Age of the oldest waiting job",
        "s",
        (("max(deepnight_queue_oldest_job_age_seconds)", "oldest"),),
        "What the next user waits for at least.",
    ),
    Panel(
        "Finished jobs",
        "short",
        ((hourly("deepnight_job_duration_seconds_count", "kind, status"), "{{kind}} {{status}}"),),
        "In the last hour.",
    ),
    Panel(
        "Jobs kept",
        "short",
        (("sum by (kind, status) (deepnight_jobs)", "{{kind}} {{status}}"),),
        "Until their retention is over.",
    ),
    Panel(
        "95th percentile of waiting",
        "s",
        (
            (
                "histogram_quantile(0.95, sum by (kind, le) (increase(deepnight_job_wait_seconds_bucket[1h])))",
                "{{kind}}",
            ),
        ),
        "From submission to the first start, over an hour.",
    ),
    Panel(
        "Mean duration",
        "s",
        (
            (
                mean("deepnight_job_duration_seconds", "kind"),
                "{{kind}}",
            ),
        ),
        "From the first start to the end, since the queue exists.",
    ),
    Panel(
        "Runs whose process died",
        "short",
        ((hourly("deepnight_job_lost_runs_total", "kind"), "{{kind}}"),),
        "In the last hour; most often out of memory. Three for one job and it fails.",
    ),
    Panel(
        "Processor time of workers and jobs",
        "short",
        (
            (
                rate("deepnight_process_cpu_seconds_total", "role", 'role=~"worker|job"'),
                "{{role}}",
            ),
        ),
        "In cores.",
    ),
)

CAPACITY = (
    Panel(
        "Processor time by role",
        "short",
        ((rate("deepnight_process_cpu_seconds_total", "role"), "{{role}}"),),
        "In cores. A gateway near 1 is at its end: add one.",
    ),
    Panel(
        "Memory by role",
        "bytes",
        (
            ("sum by (role) (deepnight_process_resident_memory_bytes)", "{{role}}"),
            (
                REPLICA_MEMORY,
                "replicas of {{deployment}}",
            ),
        ),
        "Resident. Replicas are measured by Ray, the others by themselves.",
    ),
    Panel(
        "Processes",
        "short",
        (
            ("sum by (role) (deepnight_processes)", "{{role}}"),
            ("sum by (deployment, state) (deepnight_replicas)", "replicas of {{deployment}} {{state}}"),
        ),
        "With a sign of life in the last 15 seconds; replicas as Serve's controller sees them.",
    ),
    Panel(
        "Starts of processes",
        "short",
        (
            (hourly("deepnight_process_starts_total", "role"), "{{role}}"),
            ("sum(increase(deepnight_replica_deaths_total[1h]))", "calls whose replica died"),
        ),
        "In the last hour. Each job is a start of its own; anything else should be rare.",
    ),
    Panel(
        "Free disk",
        "bytes",
        (("min by (volume) (deepnight_volume_free_bytes)", "{{volume}}"),),
        "store: data sets, versions, results; home: Redis' log, caches.",
    ),
    Panel(
        "Free share of the disk",
        "percentunit",
        (("min by (volume) (deepnight_volume_free_bytes / deepnight_volume_size_bytes)", "{{volume}}"),),
        "A ticket at 10%, a page at 3%.",
    ),
    Panel(
        "Redis",
        "bytes",
        (("deepnight_redis_memory_bytes", "used"), ("deepnight_redis_memory_limit_bytes > 0", "limit")),
        "At its limit it refuses to store jobs.",
    ),
    Panel(
        "Ray's nodes",
        "percent",
        (
            ("avg by (ip) (ray_node_cpu_utilization)", "processor of {{ip}}"),
            ("100 * sum by (ip) (ray_node_mem_used) / sum by (ip) (ray_node_mem_total)", "memory of {{ip}}"),
        ),
        "Everything on the node, not only Deepnight.",
    ),
    Panel(
        "Ray's object store",
        "bytes",
        (("sum(ray_object_store_used_memory)", "used"), ("sum(ray_object_store_available_memory)", "free")),
        "Large inputs travel through it.",
    ),
)
