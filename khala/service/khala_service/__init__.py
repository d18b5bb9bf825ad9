"""What the three services are made of: configuration, logs, metrics, HTTP edge, PostgreSQL.

Owner: nobody in particular; every service uses it, so a change here is a change of all three.
Sits below `control`, `runtime` and `khala`, above `khala_contracts`. Holds no knowledge of any one
service: no table, no topic, no route of theirs. asyncio libraries are named in `adapters/` only.
"""
