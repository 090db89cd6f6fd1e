-- Idempotency keys are found by a number made of the account and the key (key_hash, a function of the store's). Keys come in
-- no order, so that each enters the index at a page of its own: with the keys themselves it has several times the pages.
alter table messages add column key_hash integer;

-- What is known by its bytes has no key of its own any more: it is found by a part of their hash (short_hash). Only messages
-- of listeners are: what goes to a callback has the keys of its publishers, however they look.
update messages set idempotency_key = null, key_hash = short_hash(sha256)
where idempotency_key = 'body:' || lower(hex(sha256)) and not exists (
    select 1 from deliveries d join lanes l on l.id = d.lane where d.seq = messages.seq and l.consumer = ''
);
update messages set key_hash = key_hash(account, idempotency_key) where idempotency_key is not null;

drop index messages_by_idempotency_key;
create index messages_by_key_hash on messages (key_hash) where key_hash is not null;
