SELECT runtime.transfer_heads_v1($1, $2, $3, $4, $5, $6, $7)
