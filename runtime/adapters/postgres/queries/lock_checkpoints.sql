SELECT * FROM runtime.lock_checkpoints_v1($1, $2, $3)
