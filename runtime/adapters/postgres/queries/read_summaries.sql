-- $1 run ids. A statement of its own, after the checkpoints are locked: its snapshot is then newer than
-- whatever the lock waited for.
SELECT s.run_id, s.owner_user_id, s.org_id, s.name, s.title, s.state, s.event_count, s.step_count,
       s.started_at, s.last_event_at, s.finished_at, s.applied_seq
FROM runtime.run_summaries AS s
WHERE s.run_id = ANY ($1::text[])
