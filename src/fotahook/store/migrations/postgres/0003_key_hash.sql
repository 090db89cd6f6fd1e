-- The key of a message that is known by its bytes is made by the store now.
update messages set idempotency_key = 'sha256:' || substr(idempotency_key, 6)
where idempotency_key = 'body:' || encode(sha256, 'hex');
