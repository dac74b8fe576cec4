"""A panel of a dashboard, and PromQL that several share. ``$__rate_interval`` is Grafana's: at least four scrapes."""

from __future__ import annotations

from dataclasses import dataclass

USERS = 'route!~"/(healthz|readyz|metrics|version)"'
# Ray names its processes `ray::ServeReplica:APPLICATION:DEPLOYMENT.METHOD`.
REPLICA_MEMORY = (
    'sum by (deployment) (label_replace(ray_component_rss_bytes{Component=~"ray::ServeReplica.*"}, '
    '"deployment", "$1", "Component", "ray::ServeReplica:[^:]*:([^.:]*).*"))'
)


def rate(counter: str, by: str, selector: str = "") -> str:
    """Events a second."""
    chosen = f"{{{selector}}}" if selector else ""
    return f"sum by ({by}) (rate({counter}{chosen}[$__rate_interval]))"


def hourly(counter: str, by: str) -> str:
    """Events in the last hour."""
    return f"sum by ({by}) (increase({counter}[1h]))"


def mean(histogram: str, by: str) -> str:
    """The mean of all that was ever observed."""
    return f"sum by ({by}) ({histogram}_sum) / sum by ({by}) ({histogram}_count)"


def quantile(share: float, histogram: str, by: str, selector: str = "") -> str:
    """The quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', f'{by}, le', selector)})"


def share_of(status: str) -> str:
    """The share of the users' requests whose status matches; 0 where none does."""
    requests = "sum(rate(deepnight_http_requests_total{{{}}}[$__rate_interval]))"
    matching = requests.format(f'{USERS}, status=~"{status}"')
    return f"({matching} or vector(0)) / ({requests.format(USERS)} > 0)"


@dataclass(frozen=True)
class Panel:
    """One graph.

    Attributes:
        queries: PromQL and legend (``{{label}}`` is replaced) of each line.
        looks: what it shows, for a reader who has never seen it.
        stat: one number a query in place of lines.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    looks: str
    stat: bool = False
