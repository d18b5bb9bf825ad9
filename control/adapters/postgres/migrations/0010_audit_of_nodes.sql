-- oldest build: 0008
-- What nodes decided about connections and subscriptions, in the log of everything else.

ALTER TABLE control.audit_log
    ADD COLUMN connection_id text,
    ADD COLUMN node_id text,
    -- Where the row was in what its node sent: the same batch, sent again, is written once.
    ADD COLUMN batch_id text,
    ADD COLUMN batch_place integer,
    ADD CHECK ((batch_id IS NULL) = (batch_place IS NULL) AND (batch_id IS NULL OR node_id IS NOT NULL)),
    -- ended: an access that was going on was taken away; the reason says why.
    DROP CONSTRAINT audit_log_outcome_check,
    ADD CONSTRAINT audit_log_outcome_check CHECK (outcome IN ('done', 'refused', 'ended'));
CREATE UNIQUE INDEX audit_log_once ON control.audit_log (node_id, batch_id, batch_place)
    WHERE batch_id IS NOT NULL;
CREATE INDEX audit_log_of_connection ON control.audit_log (connection_id, audit_id)
    WHERE connection_id IS NOT NULL;
-- Where a window of time begins and ends (list_audit.sql). Rows arrive in the order of time: always its last page.
CREATE INDEX audit_log_by_time ON control.audit_log (occurred_at);

GRANT INSERT (connection_id, node_id, batch_id, batch_place) ON control.audit_log TO khala_control;
