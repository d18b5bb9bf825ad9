"""What control does: one module per subject, deciding by `core` and acting through `ports`.

Commands hold no state between requests; `audit_trail` (a token bucket) and `sweeper` (a task) are the
only ones that outlive a request.
"""
