-- $1 code_hash. Of many that present one code, one gets the row.
DELETE FROM control.sign_in_codes WHERE code_hash = $1
RETURNING challenge, issuer, subject, login, device_id, surface, expires_at
