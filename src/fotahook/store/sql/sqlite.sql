-- Every statement of the SQLite store, by name. Parameters are named; :now is the store's clock.

-- name: callback
select account, url, revision, registered_at from callbacks where account = :account;

-- name: put_callback
insert into callbacks (account, url, revision, registered_at) values (:account, :url, :revision, :now)
on conflict (account) do update set url = :url, revision = :revision, registered_at = :now;

-- name: drop_callback
delete from callbacks where account = :account;

-- name: last_revision
select coalesce(max(revision), 0) as revision from callback_history where account = :account;

-- name: add_history
insert into callback_history (account, revision, url, actor, at) values (:account, :revision, :url, :actor, :now);

-- name: open_callback_lane
-- A fresh URL deserves a fresh start: what was learnt of the old endpoint's health is forgotten.
insert into lanes (account, consumer, held) values (:account, '', 0)
on conflict (account, consumer) do update set
    held = 0, wait_until = 0, failures = 0, window = 1, refused = 0, reason = null,
    stopped_for = stopped_for + case when paused = 0 then :now - coalesce(stopped_at, :now) else 0 end,
    stopped_at = case when paused = 0 then null else stopped_at end;

-- name: hold_callback_lane
update lanes set held = 1, stopped_at = coalesce(stopped_at, :now) where account = :account and consumer = '';

-- name: add_message
insert into messages (id, account, type, ordering_key, idempotency_key, body, size, sha256, accepted_at)
values (:id, :account, :type, :ordering_key, :idempotency_key, :body, length(:body), :sha256, :now);

-- name: known_message
select seq, id, sha256 from messages where account = :account and idempotency_key = :idempotency_key;

-- name: count_duplicate
update messages set duplicates = duplicates + 1 where seq = :seq;

-- name: add_lane
-- The lane to the callback is born held: the register call opens it. Others lead somewhere from the start.
insert into lanes (account, consumer, held, stopped_at)
values (:account, :consumer, :consumer = '', case when :consumer = '' then :now end)
on conflict (account, consumer) do nothing;

-- name: lane
select id, coalesce(stopped_at, :now) - stopped_for as clock from lanes
where account = :account and consumer = :consumer;

-- name: add_delivery
insert into deliveries (lane, seq, place, key, state, due, born)
values (:lane, :seq, :seq, :key, case when :key is not null and exists (
    select 1 from deliveries where lane = :lane and key = :key and state in ('ready', 'behind')
) then 'behind' else 'ready' end, :now, :clock);

-- name: recompute_due
update lanes set due = (select min(due) from deliveries where lane = lanes.id and state = 'ready') where id = :lane;

-- name: lease
update lanes set token = token + 1, leased_until = :now + :seconds
where id in (
    select id from lanes
    where held = 0 and paused = 0 and due is not null and next <= :now
    order by next limit :limit
)
returning id;

-- name: leased_lane
select l.id, l.token, l.account, l.consumer, l.held = 0 and l.paused = 0 as open, c.url,
    coalesce(c.revision, 0) as revision, l.failures, l.window, l.refused, l.reason,
    m.in_flight, m.per_second,
    (select group_concat(id, ' ') from (
        select id from credentials
        where kind = 'signing_key' and owner = l.account and (expires_at is null or expires_at > :now)
        order by created_at
    )) as signing_keys
from lanes l
left join callbacks c on c.account = l.account and l.consumer = ''
left join limits m on m.account = l.account
where l.id = :lane;

-- name: fetch
select d.lane, d.seq, m.id, m.account, m.type, m.ordering_key, m.body, m.accepted_at, d.attempts, d.strikes,
    coalesce(l.stopped_at, :now) - l.stopped_for - d.born as age
from deliveries d join messages m on m.seq = d.seq join lanes l on l.id = d.lane
where d.lane = :lane and d.state = 'ready' and d.due <= :now
order by d.due, d.place limit :limit;

-- name: fence
select coalesce(c.revision, 0) as revision
from lanes l left join callbacks c on c.account = l.account and l.consumer = ''
where l.id = :lane and l.token = :token and l.leased_until > 0;

-- name: settle_delivery
update deliveries set
    state = :state, due = :now + :delay, attempts = :attempts, strikes = :strikes, last_outcome = :outcome,
    settled_at = case when :state = 'ready' then null else :now end
where lane = :lane and seq = :seq and state = 'ready'
returning key;

-- name: promote
update deliveries set state = 'ready' where lane = :lane and state = 'behind' and seq = (
    select seq from deliveries where lane = :lane and key = :key and state in ('ready', 'behind') order by place limit 1
);

-- name: add_attempt
insert into attempts (seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt)
values (:seq, :lane, :started_at, :url, :outcome, :status, :error_code, :fix, :phases, :excerpt);

-- name: keep_lane
update lanes set
    leased_until = case when :keep > 0 then :now + :keep else 0 end,
    due = (select min(due) from deliveries where lane = :lane and state = 'ready')
where id = :lane;

-- name: judge_lane
update lanes set
    wait_until = case when :wait > 0 then :now + :wait else wait_until end,
    stopped_at = case when :pause then coalesce(stopped_at, :now) else stopped_at end,
    paused = paused or :pause,
    failures = :failures, window = :window, refused = :refused, reason = :reason
where id = :lane;

-- name: forget_leases
update lanes set leased_until = 0 where leased_until > 0;

-- name: next_due
select min(next) as next from lanes where held = 0 and paused = 0 and due is not null;

-- name: message
select seq, id, account, type, ordering_key, idempotency_key, body, size, sha256, accepted_at, duplicates
from messages where id = :id;

-- name: placements
select l.consumer, d.state, d.attempts, d.due, d.settled_at, d.last_outcome,
    coalesce(l.stopped_at, :now) - l.stopped_for - d.born as age
from deliveries d join lanes l on l.id = d.lane where d.seq = :seq order by l.consumer;

-- name: attempts
select a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix, a.phases, a.excerpt
from attempts a join messages m on m.seq = a.seq where m.id = :id order by a.rowid;

-- name: lanes
select l.consumer, l.held, l.paused, l.wait_until, l.failures, l.window, l.refused, l.reason,
    (select count(*) from deliveries where lane = l.id and state in ('ready', 'behind')) as pending,
    (select count(*) from deliveries where lane = l.id and state = 'dead') as dead,
    (select m.accepted_at from deliveries d join messages m on m.seq = d.seq
     where d.lane = l.id and d.state in ('ready', 'behind') order by d.seq limit 1) as oldest_accepted_at
from lanes l where l.account = :account order by l.consumer;

-- name: save_credential
insert or replace into credentials (kind, id, owner, secret_hash, accounts, scopes, created_at, expires_at)
values (:kind, :id, :owner, :secret_hash, :accounts, :scopes, :created_at, :expires_at);

-- name: credential
select kind, id, owner, secret_hash, accounts, scopes, created_at, expires_at from credentials
where kind = :kind and id = :id and (expires_at is null or expires_at > :now);

-- name: credentials
select kind, id, owner, secret_hash, accounts, scopes, created_at, expires_at from credentials
where kind = :kind and owner = :owner and (expires_at is null or expires_at > :now) order by created_at, id;

-- name: drop_credential
delete from credentials where kind = :kind and id = :id;

-- name: drop_expired_credentials
delete from credentials where kind = :kind and expires_at <= :now;

-- name: limits
select in_flight, per_second from limits where account = :account;

-- name: set_limits
insert or replace into limits (account, in_flight, per_second) values (:account, :in_flight, :per_second);

-- name: pause
-- A lane that never was is made, so that an account can be paused before its first message.
update lanes set paused = 1, stopped_at = coalesce(stopped_at, :now) where account = :account and consumer = :consumer;

-- name: resume
update lanes set
    paused = 0, wait_until = 0, failures = 0, window = 1, refused = 0, reason = null,
    stopped_for = stopped_for + case when held = 0 then :now - coalesce(stopped_at, :now) else 0 end,
    stopped_at = case when held = 0 then null else stopped_at end
where account = :account and consumer = :consumer;

-- name: next_place
update sqlite_sequence set seq = seq + 1 where name = 'messages' returning seq;

-- name: redeliver
-- The message's deliveries, or those in one state, go to the tail of their key, attempts and time to live afresh.
update deliveries set
    place = :place, due = :now, attempts = 0, strikes = 0, settled_at = null,
    born = (select coalesce(stopped_at, :now) - stopped_for from lanes where id = deliveries.lane),
    state = case when key is not null and exists (
        select 1 from deliveries other
        where other.lane = deliveries.lane and other.key = deliveries.key and other.state in ('ready', 'behind')
    ) then 'behind' else 'ready' end
where seq = :seq and (:state is null or state = :state)
returning lane;

-- name: is_pending
select exists (select 1 from deliveries where seq = :seq and state in ('ready', 'behind')) as pending;

-- name: consumers
select l.consumer from deliveries d join lanes l on l.id = d.lane where d.seq = :seq order by l.consumer;

-- name: redeliverable
-- Settled messages of an account with a delivery in this state, accepted in this span; bodies that are gone stay gone.
select m.seq from messages m
where m.account = :account and m.seq > :done and m.seq <= :last
    and m.accepted_at >= :since and m.accepted_at < :until and m.body is not null
    and exists (select 1 from deliveries d where d.seq = m.seq and d.state = :state)
    and not exists (select 1 from deliveries d where d.seq = m.seq and d.state in ('ready', 'behind'))
order by m.seq limit :limit;

-- name: last_message
select coalesce(max(seq), 0) as seq from messages where account = :account;

-- name: add_redelivery
insert into redeliveries (account, state, since, until, last) values (:account, :state, :since, :until, :last);

-- name: next_redelivery
select id, account, state, since, until, done, last from redeliveries order by id limit 1;

-- name: advance_redelivery
update redeliveries set done = :done where id = :id;

-- name: end_redelivery
delete from redeliveries where id = :id;

-- name: old_bodies
-- Some bodies, oldest first, each with whether somebody still waits for it.
select m.seq, m.size, m.accepted_at,
    exists (select 1 from deliveries d where d.seq = m.seq and d.state in ('ready', 'behind')) as pending
from messages m where m.body is not null and m.seq > :after order by m.seq limit :limit;

-- name: prune
update messages set body = null where seq = :seq
    and not exists (select 1 from deliveries d where d.seq = :seq and d.state in ('ready', 'behind'));

-- name: used_bytes
select (page_count - freelist_count) * page_size as bytes
from pragma_page_count, pragma_freelist_count, pragma_page_size;
