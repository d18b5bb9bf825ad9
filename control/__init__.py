"""The control plane: who someone is, what they may see, and proof of it for a short while.

Owns identities, sessions, devices, orgs, service keys, sync tokens and the audit log (schema
`control`). Knows nothing of events: owners of runs and workers are asked from the runtime.
Start reading at `app.py`.
"""
