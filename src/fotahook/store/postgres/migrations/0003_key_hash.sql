-- A message that is known by its bytes is found by a key that nobody can give. Only those of listeners are: what goes to a
-- callback has the keys of its publishers, however they look.
update messages m set idempotency_key = chr(1) || encode(m.sha256, 'hex')
where m.idempotency_key = 'body:' || encode(m.sha256, 'hex') and not exists (
    select from deliveries d join lanes l on l.id = d.lane where d.seq = m.seq and l.consumer = ''
);
