-- $1 user_id, $2 login, $3 issuer, $4 subject, $5 now.
WITH new_user AS (
    INSERT INTO control.users (user_id, login, created_at) VALUES ($1, $2, $5) RETURNING user_id
)
INSERT INTO control.identities (issuer, subject, user_id, created_at)
SELECT $3, $4, user_id, $5 FROM new_user
