SELECT runtime.finish_batch_v1($1, $2, $3, $4, $5, $6, $7)
