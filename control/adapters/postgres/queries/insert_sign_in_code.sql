-- $1 code_hash, $2 challenge, $3 issuer, $4 subject, $5 login, $6 device_id, $7 surface, $8 expires_at.
INSERT INTO control.sign_in_codes
    (code_hash, challenge, issuer, subject, login, device_id, surface, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
