"""Shows a service's limits and their violations to Prometheus: what is in force, and who met it how often."""

from collections import Counter
from collections.abc import Iterator, Mapping

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from khala_service.live_limits import numbers_of


class LimitCollector:
    """Reads limits and counts at each scrape, so that it shows a reload at once."""

    def __init__(
        self,
        service: str,
        limits: attrs.AttrsInstance,
        violations: Counter[str],
        reasons: Mapping[str, str],
    ) -> None:
        """Show ``limits``, and ``violations`` by limit.

        Args:
            service: node, runtime or control.
            limits: The object that is in force.
            violations: By name of the limit.
            reasons: Each limit that can be exceeded, and the reason code that says so; none: no violations are shown.
        """
        self._prefix = f"khala_{service}_"
        self._limits = limits
        self._violations = violations
        self._reasons = reasons

    def collect(self) -> Iterator[Metric]:
        """Yield both metrics; called by the registry at a scrape."""
        values = GaugeMetricFamily(
            self._prefix + "limit", "Limits in force, by name in the configuration.", labels=["limit"]
        )
        for name, value in numbers_of(self._limits):
            values.add_metric([name], value)
        yield values
        if not self._reasons:
            return
        violations = CounterMetricFamily(
            self._prefix + "limit_violations", "Limits exceeded.", labels=["limit", "reason"]
        )
        for name, reason in self._reasons.items():
            violations.add_metric([name, reason], self._violations[name])
        yield violations
