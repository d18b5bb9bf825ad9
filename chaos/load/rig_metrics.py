"""Reads the admin port of a process: its readiness, and the text format of ``/metrics``."""

from __future__ import annotations

import http.client
from contextlib import closing
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["AdminPortError", "is_ready", "parse_metrics", "read_metrics"]

_TIMEOUT_S: Final = 10.0


class AdminPortError(Exception):
    """The admin port did not answer, or not with 200."""


def read_metrics(admin_url: str) -> dict[str, float]:
    """Return what ``/metrics`` says now; see ``parse_metrics``.

    Raises:
        AdminPortError: It does not say anything.
    """
    status, text = _get(admin_url, "/metrics")
    if status != http.client.OK:
        raise AdminPortError(f"{admin_url}/metrics answered {status}")
    return parse_metrics(text)


def is_ready(admin_url: str) -> bool:
    """Return whether the process says that it is ready; one that does not answer is not."""
    try:
        return _get(admin_url, "/readyz")[0] == http.client.OK
    except AdminPortError:
        return False


def _get(admin_url: str, path: str) -> tuple[int, str]:
    # Not httpx: it loads certificates for each client, 40 ms of CPU beside what is measured.
    with closing(http.client.HTTPConnection(urlsplit(admin_url).netloc, timeout=_TIMEOUT_S)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as exc:
            raise AdminPortError(f"{admin_url}{path}: {exc}") from exc


def parse_metrics(text: str) -> dict[str, float]:
    """Return the samples by ``name``, or ``name{label="value",...}`` with labels in their order by name."""
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples
