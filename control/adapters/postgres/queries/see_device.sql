-- $1 user_id, $2 device_id, $3 whether its user may own the inbox, $4 now.
-- Last seen is coarse: a write per mint would make it a hot row.
INSERT INTO control.devices (user_id, device_id, owns_inbox, first_seen_at, last_seen_at)
VALUES (
    $1, $2,
    $3 AND NOT EXISTS (SELECT FROM control.devices WHERE device_id = $2 AND owns_inbox),
    $4, $4
)
ON CONFLICT (user_id, device_id) DO UPDATE SET last_seen_at = excluded.last_seen_at
WHERE devices.last_seen_at < excluded.last_seen_at - interval '1 minute'
