-- $1 issuer, $2 subject.
SELECT user_id FROM control.identities WHERE issuer = $1 AND subject = $2
