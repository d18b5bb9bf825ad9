-- $1 user_id, $2 device_id.
SELECT true FROM control.devices WHERE user_id = $1 AND device_id = $2
