SELECT * FROM runtime.lock_checkpoints_v2($1, $2, $3)
