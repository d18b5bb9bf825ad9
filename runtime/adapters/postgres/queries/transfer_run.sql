SELECT runtime.transfer_run_v1($1, $2, $3)
