"""Control's limits as one value: what is shown at /metrics, and what a reload changes (khala_service/live_limits.py)."""

import attrs


@attrs.frozen(kw_only=True)
class ControlLimits:
    """Lifetimes in seconds and counts; the names are those of the configuration, which has the defaults."""

    access_token_ttl_s: int
    session_lifetime_s: int
    refresh_grace_s: int
    sync_token_ttl_s: int
    sync_token_topics_max: int
    keys_per_org_max: int
