-- The statements of the PostgreSQL store besides those that all stores share, by name. Parameters are named; store_now() is its
-- clock.
--
-- A transaction that changes deliveries first locks their lanes, in id order and in a statement of its own, so that the
-- next statement sees everything committed before. The lock order is the same everywhere: lanes, then messages.
--
-- A condition "there is any" for each row is a `select true … limit 1`: for `exists` the planner may read everything that
-- is pending into a hash table first. An `order by` in it selects the index.
--
-- Where a snapshot of another transaction keeps old versions of a lane, the newest of them comes last in an index. So lanes
-- are found by scanning backwards (`between … order by … desc limit 1`; for an `=` the planner would scan forwards), and
-- changed by their `ctid`. A fetch begins at the lane's `since`, a lease at a time before which no lane is due.

-- name: lock_lanes
-- :names is JSON, an account and a consumer each.
select l.id, l.account, l.consumer, l.token,
    case when l.held or l.paused then 'other' when l.leased_until > store_now() then 'leased'
        when l.due is null and l.wait_until <= store_now() then 'idle' else 'other' end as use
from unnest(array(
    select found.id
    from (select name ->> 0 as account, name ->> 1 as consumer from json_array_elements(:names::json) name) named
    cross join lateral (
        select id from lanes
        where (account, consumer) >= (named.account, named.consumer) and (account, consumer) <= (named.account, named.consumer)
        order by account desc, consumer desc limit 1
    ) found
    union select unnest(:ids::bigint[]) order by 1
)) as chosen (id)
cross join lateral (
    select * from lanes where id between chosen.id and chosen.id order by id desc limit 1 for no key update
) l;

-- name: add_lanes
-- A lane to a callback starts held, and the register call opens it. Other lanes have a destination from the start.
with named as (
    insert into lane_names (account, consumer)
    select name ->> 0, name ->> 1 from json_array_elements(:names::json) name order by 1, 2
    on conflict (account, consumer) do nothing
    returning account, consumer
)
insert into lanes (account, consumer, held, stopped_at)
select account, consumer, consumer = '', case when consumer = '' then store_now() end from named;

-- name: take_room
-- Room that the same transaction gives back: a write that a full or read-only store refuses, as it would a message.
insert into credentials (kind, id, owner, secret_hash, scopes, created_at)
values ('probe', :id, '', decode(repeat('00', 1024), 'hex'), '{}', 0);

-- name: put_callback
insert into callbacks (account, url, revision, registered_at) values (:account, :url, :revision, store_now())
on conflict (account) do update set
    url = excluded.url, revision = excluded.revision, registered_at = excluded.registered_at
returning account, url, revision, registered_at;

-- name: trim_history
-- The oldest changes of a callback beyond those that are kept, a few at a time.
delete from callback_history where account = :account and revision in (
    select revision from callback_history where account = :account and revision <= :revision order by revision limit :limit
) returning number;

-- name: open_callback_lane
-- The health of the old endpoint says nothing about the new one.
update lanes set
    held = false, wait_until = store_now(), failures = 0, "window" = 4, refused = 0, reason = null,
    succeeded = 0, failed = 0, latency = 0,
    stopped_for = stopped_for + case when paused then 0 else greatest(0, store_now() - stopped_at) end,
    stopped_at = case when paused then stopped_at end
where account = :account and consumer = '';

-- name: hold_callback_lane
update lanes set held = true, stopped_at = coalesce(stopped_at, store_now())
where account = :account and consumer = '';

-- name: pause
update lanes set paused = true, stopped_at = coalesce(stopped_at, store_now())
where account = :account and consumer = :consumer;

-- name: resume
update lanes set
    paused = false, wait_until = store_now(), failures = 0, "window" = 4, refused = 0, reason = null,
    succeeded = 0, failed = 0, latency = 0,
    stopped_for = stopped_for + case when held then 0 else greatest(0, store_now() - stopped_at) end,
    stopped_at = case when held then stopped_at end
where account = :account and consumer = :consumer;

-- name: end_backoff
-- Deliveries in backoff become due, since the endpoint was replaced or repaired. The lane is locked.
update pending p set due = greatest(store_now(), l.since) from lanes l
where l.account = :account and l.consumer = :consumer
    and p.lane = l.id and p.ready and p.due > store_now() and p.strikes > 0;

-- name: lanes_of_origin
-- Lanes that wait for a receiver.
select l.id as lane from callbacks c join lanes l on l.account = c.account and l.consumer = ''
where c.origin = :origin and l.failures > 0 and l.wait_until > store_now() and not (l.held or l.paused) limit :limit;

-- name: lanes_beyond
-- Lanes that are due after longer than anything may wait: they were written while the clock was ahead.
select id as lane, true as ahead from lanes
where not held and not paused and due is not null and next > store_now() + :seconds::double precision limit :limit;

-- name: lanes_ahead
-- The next lanes, and whether they have times further ahead than any that this clock wrote.
select id as lane, greatest(
        due, wait_until, leased_until, since,
        (select due from pending where lane = lanes.id and ready order by due desc limit 1)
    ) > store_now() + :seconds::double precision as ahead
from lanes where id > :after order by id limit :limit;

-- name: end_backoffs
update pending p set due = greatest(store_now(), l.since) from lanes l
where l.id = any(:lanes::bigint[]) and p.lane = l.id and p.ready and p.due > store_now() and p.strikes > 0;

-- name: wake_lanes
update lanes l set wait_until = store_now(),
    due = (select min(due) from pending where lane = l.id and ready and due >= l.since)
where id = any(:lanes::bigint[]);

-- name: recall_lanes
-- Nothing in them is due later than now, nor were they searched any further.
update lanes l set wait_until = least(wait_until, store_now()), leased_until = least(leased_until, store_now()),
    since = least(since, store_now()), due = (select min(due) from pending where lane = l.id and ready)
where id = any(:lanes::bigint[]);

-- name: recompute_due
update lanes l set due = (select min(due) from pending where lane = l.id and ready and due >= l.since)
where l.account = :account and l.consumer = :consumer;

-- name: pending_usage
select count(*) as messages, coalesce(sum(size), 0)::bigint as bytes, coalesce(max(seq), 0) as last from (
    select p.seq, m.size from lanes l join pending p on p.lane = l.id join messages m on m.seq = p.seq
    where l.account = :account and l.consumer = '' and p.seq > :after
    order by p.seq limit :limit
) pending;

-- name: add_audit
insert into audit (actor, address, action, account, subject, detail)
values (:actor, :address, :action, :account, :subject, :detail) returning number;

-- name: set_limits
insert into limits
    (account, in_flight, per_second, pending_messages, pending_bytes, publishes_per_second, changes_per_hour)
values (
    :account, :in_flight, :per_second, :pending_messages, :pending_bytes, :publishes_per_second, :changes_per_hour
)
on conflict (account) do update set in_flight = excluded.in_flight, per_second = excluded.per_second,
    pending_messages = excluded.pending_messages, pending_bytes = excluded.pending_bytes,
    publishes_per_second = excluded.publishes_per_second, changes_per_hour = excluded.changes_per_hour;

-- name: known_message
select id, sha256 from messages where account = :account and idempotency_key = :key;

-- name: forget_keys
-- Idempotency keys whose window is over: the next message with such a key is a new one. A message of the future was
-- accepted while the clock was ahead.
update messages m set idempotency_key = null
from unnest(:accounts::text[], :idempotency_keys::text[], :windows::double precision[])
    as given (account, idempotency_key, seconds)
where m.account = given.account and m.idempotency_key = given.idempotency_key
    and abs(store_now() - m.accepted_at) >= given.seconds;

-- name: add_messages
-- In the given order, except messages with a known idempotency key. If another process is storing the same key, this
-- waits for it, and then takes the message for a duplicate.
with added as (
    insert into messages (id, account, type, ordering_key, idempotency_key, size, sha256, accepted_at)
    select id, account, type, ordering_key, idempotency_key, length(body), sha256, store_now()
    from unnest(
        :ids::text[], :accounts::text[], :types::text[], :ordering_keys::text[], :idempotency_keys::text[],
        :bodies::bytea[], :digests::bytea[]
    ) with ordinality as given (id, account, type, ordering_key, idempotency_key, body, sha256, number)
    order by number
    on conflict (account, idempotency_key) where idempotency_key is not null do nothing
    returning id, seq, accepted_at
), kept as (
    insert into bodies (day, seq, body)
    select day_of(added.accepted_at), added.seq, given.body from unnest(:ids::text[], :bodies::bytea[]) as given (id, body) join added using (id)
)
select id, seq, accepted_at from added;

-- name: add_pending
-- Makes the lanes due; a lane that is due already costs no write. Those in :taken were idle, and are leased.
with added as (
    insert into pending (seq, lane, place, key, ready, due, born)
    select new.seq, new.lane, new.seq, new.key, new.key is null or (new.number = 1 and not coalesce((
            select true from pending p where p.lane = new.lane and p.key = new.key order by p.place desc limit 1
        ), false)), greatest(store_now(), l.since), coalesce(l.stopped_at, store_now()) - l.stopped_for
    from (
        select *, row_number() over (partition by lane, key order by seq) as number
        from unnest(:lanes::bigint[], :seqs::bigint[], :keys::text[]) as given (lane, seq, key)
    ) new
    cross join lateral (
    select * from lanes where id between new.lane and new.lane order by id desc limit 1
) l
    returning lane, ready
), counted as (
    insert into counts (minute, lane, accepted)
    select floor(store_now() / 60), lane, count(*) from added group by lane
    on conflict (minute, lane) do update set accepted = counts.accepted + excluded.accepted
), woken as (
    update lanes l set due = store_now(), token = l.token + new.taken::integer,
        leased_until = case when new.taken then store_now() + :seconds::double precision else l.leased_until end
    from (
        select found.ctid, lane = any(:taken::bigint[]) as taken
        from (select distinct lane from added where ready) ready
        cross join lateral (
    select ctid from lanes where id between ready.lane and ready.lane order by id desc limit 1
) found
    ) new
    where l.ctid = new.ctid and (l.due is null or l.due > store_now())
    returning l.id as lane, l.token, l.account, l.consumer, true as open, l.failures, l."window", l.refused, l.reason,
        l.succeeded, l.failed, l.latency, store_now() as read_at, new.taken
)
select woken.*, f.url, f.revision, f.in_flight, f.per_second, f.signing_keys
from woken cross join lateral lane_facts(woken.account, woken.consumer) f where woken.taken;

-- name: count_duplicates
update messages m set duplicates = m.duplicates + given.times
from unnest(:accounts::text[], :idempotency_keys::text[], :times::bigint[]) as given (account, idempotency_key, times)
where m.account = given.account and m.idempotency_key = given.idempotency_key
returning m.account, m.idempotency_key, m.id, m.sha256;

-- name: message
-- A key of \x01 and the hash is of an earlier version, which knew messages by their bytes.
select m.seq, m.id, m.account, m.type, m.ordering_key,
    nullif(m.idempotency_key, E'\x01' || encode(m.sha256, 'hex')) as idempotency_key,
    b.body, m.size, m.sha256, m.accepted_at, m.duplicates
from messages m left join bodies b on b.day = day_of(m.accepted_at) and b.seq = m.seq where m.id = :id;

-- name: delivery_statuses
select p.seq, l.consumer, 'pending' as state, p.attempts, p.due, null as settled_at,
    coalesce(l.stopped_at, store_now()) - l.stopped_for - p.born as age, l.stopped_at is not null as stopped,
    case when not p.ready then (
        select m.id from pending head join messages m on m.seq = head.seq
        where head.lane = p.lane and head.key = p.key order by head.place limit 1
    ) end as behind,
    (
        select outcome from attempts where day = w.day and seq = p.seq and lane = p.lane order by number + 0 desc limit 1
    ) as last_outcome
from waiting w
cross join lateral (select * from pending where lane = w.lane and seq = w.seq limit 1) p
join lanes l on l.id = w.lane
where w.seq = any(:seqs::bigint[])
union all
select s.seq, l.consumer, s.state, s.attempts, s.settled_at, s.settled_at, 0.0, l.stopped_at is not null, null,
    s.last_outcome
from settled s join lanes l on l.id = s.lane where s.seq = any(:seqs::bigint[])
order by consumer;

-- name: attempts
select m.id as message_id, row_number() over (order by a.number) as number, a.started_at, a.url, a.outcome, a.status as http_status, a.error_code, a.fix,
    a.phases, a.excerpt, a.resent
from messages m join attempts a on a.day = day_of(m.accepted_at) and a.seq = m.seq where m.id = :id order by a.number;

-- name: recent_attempts
select m.id as message_id, m.accepted_at, a.started_at, a.url, a.outcome, a.status as http_status, a.error_code, a.fix, a.phases, a.excerpt,
    a.resent, (
        select count(*) from attempts b where b.day = a.day and b.seq = a.seq and b.number + 0 <= a.number
    ) as number
from (select * from attempts order by number desc limit :limit) a join messages m on m.seq = a.seq
order by a.number desc;

-- name: account_attempts
-- Of these messages.
select m.id as message_id, m.accepted_at, a.started_at, a.url, a.outcome, a.status as http_status, a.error_code, a.fix, a.phases, a.excerpt,
    a.resent, (
        select count(*) from attempts b where b.day = a.day and b.seq = a.seq and b.number + 0 <= a.number
    ) as number
from messages m join attempts a on a.day = day_of(m.accepted_at) and a.seq = m.seq
where m.seq = any(:seqs::bigint[]) order by a.number desc limit :limit;

-- name: lanes
select l.consumer, case when l.paused then 'paused' when l.held then 'held' when l.wait_until > store_now() then 'waiting' else 'open' end as state,
    case when not l.paused and not l.held and l.wait_until > store_now() then l.wait_until end as until,
    l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, b.pending, b.dead, b.oldest_accepted_at
from lanes l join backlogs b on b.lane = l.id where l.account = :account order by l.consumer;

-- name: accounts
select l.account, c.url, c.revision, c.registered_at, m.in_flight, m.per_second,
    m.pending_messages, m.pending_bytes, m.publishes_per_second, m.changes_per_hour,
    l.consumer, case when l.paused then 'paused' when l.held then 'held' when l.wait_until > store_now() then 'waiting' else 'open' end as state,
    case when not l.paused and not l.held and l.wait_until > store_now() then l.wait_until end as until,
    l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, b.pending, b.dead, b.oldest_accepted_at
from (
    select * from lanes l
    where l.consumer = :consumer and l.account > :after and (:among::text[] is null or l.account = any(:among))
        and case coalesce(:state::text, '')
        when '' then true
        when 'trouble' then l.failures > 0 or l.reason is not null or (l.held and l.due is not null)
        when 'paused' then l.paused
        when 'held' then l.held and not l.paused
        when 'waiting' then l.wait_until > store_now() and not l.held and not l.paused
        else l.wait_until <= store_now() and not l.held and not l.paused
    end
    order by l.account limit :limit
) l
join backlogs b on b.lane = l.id
left join callbacks c on c.account = l.account
left join limits m on m.account = l.account
order by l.account;

-- name: recent
select seq, seq as reached from messages
where account = :account and seq + 0 < :before order by seq + 0 desc limit :limit;

-- name: following
select seq, seq as reached from messages
where account = :account and seq + 0 > :after and seq + 0 <= :last order by seq + 0 limit :limit;

-- name: recent_pending
-- What is pending or dead of an account is found at once, however much history there is.
select distinct d.seq, d.seq as reached from lanes l
cross join lateral (
    select seq from pending where lane = l.id and seq < :before order by seq desc limit :limit
) d
where l.account = :account order by d.seq desc limit :limit;

-- name: recent_dead
select distinct d.seq, d.seq as reached from lanes l
cross join lateral (
    select seq from dead where lane = l.id and seq < :before order by seq desc limit :limit
) d
where l.account = :account order by d.seq desc limit :limit;

-- name: newest_pending
-- The newest :each of each lane: of these accounts, or of the first thousand lanes that have any.
with recursive every (lane) as (
    select min(lane) from pending
    union all
    select (select min(lane) from pending where lane > every.lane) from every where lane is not null
), looked (lane) as (
    select id from lanes where account = any(:among::text[])
    union all
    (select lane from every where :among::text[] is null limit 1000)
)
select distinct d.seq from looked cross join lateral (
    select seq from pending where lane = looked.lane and seq < :before and seq >= :floor order by seq desc limit :each
) d
order by d.seq desc limit :limit;

-- name: newest_dead
-- The newest :each of each lane: of these accounts, or of the first thousand lanes that have any.
with recursive every (lane) as (
    select min(lane) from dead
    union all
    select (select min(lane) from dead where lane > every.lane) from every where lane is not null
), looked (lane) as (
    select id from lanes where account = any(:among::text[])
    union all
    (select lane from every where :among::text[] is null limit 1000)
)
select distinct d.seq from looked cross join lateral (
    select seq from dead where lane = looked.lane and seq < :before and seq >= :floor order by seq desc limit :each
) d
order by d.seq desc limit :limit;

-- name: matching
select m.seq, m.id, m.account, m.type, m.ordering_key,
    nullif(m.idempotency_key, E'\x01' || encode(m.sha256, 'hex')) as idempotency_key,
    null::bytea as body, m.size, m.sha256, m.accepted_at, m.duplicates
from messages m
where m.seq = any(:seqs::bigint[])
    and (:type::text is null or m.type = :type) and (:ordering_key::text is null or m.ordering_key = :ordering_key)
    and (:since::double precision is null or m.accepted_at >= :since)
    and (:until::double precision is null or m.accepted_at < :until)
    and case coalesce(:state::text, '')
        when '' then true
        when 'pending' then (select true from waiting where seq = m.seq limit 1)
        else (select true from settled where seq = m.seq and state = :state limit 1)
    end
order by m.seq desc limit :limit;

-- name: lease
-- The lanes that are longest overdue, except locked ones; none is due before :since. `late`: how many lanes are overdue by
-- more than a second. If there are more of these than the statement leased, a lock hides one: see lease_late.
with due as (
    select ctid, next from lanes
    where not held and not paused and due is not null and next >= :since and next <= store_now()
    order by next limit :limit for no key update skip locked
), taken as (
    update lanes l set token = l.token + 1, leased_until = store_now() + :seconds::double precision
    from due where l.ctid = due.ctid
    returning l.id as lane, l.token, l.account, l.consumer, not (l.held or l.paused) as open,
        l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, store_now() as read_at,
        due.next, due.next <= store_now() - 1 as was_late
), late as (
    select count(*) as late from (
        select from lanes
        where not held and not paused and due is not null and next >= :since and next <= store_now() - 1 limit :limit
    ) overdue
)
select late.late, store_now() as now, taken.*, f.url, f.revision, f.in_flight, f.per_second, f.signing_keys
from late left join (taken cross join lateral lane_facts(taken.account, taken.consumer) f) on true
order by taken.next;

-- name: sweep_lanes
-- The next lanes by their names: when the earliest is due of those that are due before :since, and where to go on.
with names as (
    select account, consumer from lane_names
    where (account, consumer) > (:account::text, :consumer::text) order by account, consumer limit :limit
), ends as (
    select account, consumer from names order by account desc, consumer desc limit 1
)
select coalesce(min(l.next), 'infinity') as earliest,
    case when count(*) = :limit then (select account from ends) else '' end as account,
    case when count(*) = :limit then (select consumer from ends) else '' end as consumer
from names n left join lateral (
    select case when not held and not paused and due is not null and next < :since then next end as next from lanes
    where (account, consumer) >= (n.account, n.consumer) and (account, consumer) <= (n.account, n.consumer)
    order by account desc, consumer desc limit 1
) l on true;

-- name: lease_late
-- Late lanes, waiting for their locks: a busy lane would starve otherwise.
with due as (
    select id from lanes
    where id = any(array(
            select id from lanes
            where not held and not paused and due is not null and next >= :since and next <= store_now() - 1 order by next limit :limit
        ))
        and not held and not paused and due is not null and next <= store_now()
    order by id for no key update
), taken as (
    update lanes l set token = l.token + 1, leased_until = store_now() + :seconds::double precision
    from due where l.id = due.id
    returning l.id as lane, l.token, l.account, l.consumer, not (l.held or l.paused) as open,
        l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, store_now() as read_at
)
select taken.*, f.url, f.revision, f.in_flight, f.per_second, f.signing_keys
from taken cross join lateral lane_facts(taken.account, taken.consumer) f;

-- name: fetch
-- For several leases at once; `number` is the lease that a row is for. :without has the text of an array for each lease.
select asked.number, p.lane, p.seq, m.id as message, m.account, m.type, m.ordering_key, b.body, m.accepted_at,
    p.attempts, p.strikes, coalesce(l.stopped_at, store_now()) - l.stopped_for - p.born as age,
    exists (
        select from pending o where o.lane = p.lane and o.key = p.key and o.place > p.place
    ) as followed,
    (select note from notes where seq = p.seq) as note
from unnest(:lanes::bigint[], :limits::bigint[], :sizes::bigint[], :without::text[])
    with ordinality as asked (lane, most, max_bytes, without, number)
cross join lateral (
    select * from lanes where id between asked.lane and asked.lane order by id desc limit 1
) l
cross join lateral (
    select found.*, sum(size) over (order by due, place rows unbounded preceding) - size as size_before
    from (
        select p.*, m.size from pending p join messages m using (seq)
        where p.lane = asked.lane and p.ready and p.due >= l.since and p.due <= store_now()
            and p.seq <> all(asked.without::bigint[])
        order by p.due, p.place limit asked.most
    ) found
) p
join messages m on m.seq = p.seq
join bodies b on b.day = day_of(m.accepted_at) and b.seq = p.seq
where p.size_before <= asked.max_bytes
order by asked.number, p.due, p.place;

-- name: mark_handled
-- In the transaction of a handler. Another attempt at the same delivery waits for its end here; none if it is handled.
-- If the commit's response is lost, the attempt fails, and settle keeps the mark: the next attempt finds it.
update pending set handled = true where lane = :lane and seq = :seq and ready is not false and not handled
returning seq;

-- name: settle
-- `is not false`: for a plain condition the planner may use the index of what is ready in a lane.
with given as (
    select * from unnest(
        :lanes::bigint[], :seqs::bigint[], :states::text[], :delays::double precision[], :attempts::integer[],
        :strikes::integer[], :accepted::double precision[], :started::double precision[], :urls::text[], :outcomes::text[], :statuses::integer[],
        :error_codes::text[], :fixes::text[], :phases::text[], :excerpts::text[], :resent::boolean[]
    ) with ordinality as given (
        lane, seq, state, delay, attempts,
        strikes, accepted_at, started_at, url, outcome, status, error_code, fix, phases, excerpt, resent, number
    )
), counted as (
    insert into counts (minute, lane, delivered, failed, dead)
    select floor(store_now() / 60), lane, count(*) filter (where outcome = 'delivered'),
        count(*) filter (where outcome = 'failed'), count(*) filter (where state = 'dead')
    from given group by lane
    on conflict (minute, lane) do update set delivered = counts.delivered + excluded.delivered,
        failed = counts.failed + excluded.failed, dead = counts.dead + excluded.dead
), put_off as (
    update pending p set
        due = greatest(store_now() + given.delay, l.since), attempts = given.attempts, strikes = given.strikes
    from given cross join lateral (
        select since from lanes where id between given.lane and given.lane order by id desc limit 1
    ) l
    where given.state = 'pending' and p.lane = given.lane and p.seq = given.seq and p.ready is not false
), ended as (
    delete from pending p using given
    where given.state <> 'pending' and p.lane = given.lane and p.seq = given.seq and p.ready is not false
    returning p.lane, p.seq, given.state, given.attempts
), buried as (
    insert into dead (lane, seq, attempts, settled_at)
    select lane, seq, attempts, store_now() from ended where state = 'dead'
)
insert into attempts (
    day, seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt, resent, at, state, charged
)
select day_of(accepted_at), seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt, resent,
    store_now(), state, attempts
from given order by number;

-- name: promote
-- The first pending delivery of each of these keys, of which the deliveries at :seqs were settled: it has a later place. It
-- is due by now: the clock may have been ahead when it came.
update pending p set ready = true, due = greatest(least(p.due, store_now()), next.since)
from (
    select head.seq, settled.lane, l.since
    from (
        select lane, key, max(seq) as seq from unnest(:lanes::bigint[], :keys::text[], :seqs::bigint[]) as given (lane, key, seq)
        group by lane, key
    ) settled
    cross join lateral (
        select since from lanes where id between settled.lane and settled.lane order by id desc limit 1
    ) l
    cross join lateral (
        select seq, ready from pending
        where lane = settled.lane and key = settled.key and place > settled.seq order by place limit 1
    ) head
    where not head.ready
) next
where p.seq = next.seq and p.lane = next.lane;

-- name: keep_lanes
-- Each lane's verdict, unless it is about an older callback, its lease, and its due time by its deliveries. A lane that is
-- given back gets another token, and is due from now on.
with given as (
    select given.*, v.ctid, f.revision = given.spoke_of as judged, f.url, f.revision, f.in_flight, f.per_second, f.signing_keys,
        (select min(due) from pending where lane = v.id and ready and due >= v.since) as due
    from unnest(
        :lanes::bigint[], :revisions::bigint[], :keeps::double precision[], :waits::double precision[],
        :pauses::boolean[], :failures::integer[], :windows::integer[], :refusals::integer[], :reasons::text[],
        :succeeded::double precision[], :failed::double precision[], :latencies::double precision[]
    ) as given (lane, spoke_of, keep, wait, pause, failures, "window", refused, reason, succeeded, failed, latency)
    cross join lateral (
        select ctid, * from lanes where id between given.lane and given.lane order by id desc limit 1
    ) v
    cross join lateral lane_facts(v.account, v.consumer) f
)
update lanes l set
    token = case when g.keep > 0 then l.token else l.token + 1 end,
    leased_until = case when g.keep > 0 then store_now() + g.keep else store_now() end,
    due = g.due,
    since = greatest(l.since, least(coalesce(g.due, store_now()), store_now())),
    wait_until = case when g.judged and g.wait > 0 then store_now() + g.wait else l.wait_until end,
    stopped_at = case when g.judged and g.pause then coalesce(l.stopped_at, store_now()) else l.stopped_at end,
    paused = l.paused or (g.judged and g.pause),
    failures = case when g.judged then g.failures else l.failures end,
    "window" = case when g.judged then g."window" else l."window" end,
    refused = case when g.judged then g.refused else l.refused end,
    reason = case when g.judged then g.reason else l.reason end,
    succeeded = case when g.judged then g.succeeded else l.succeeded end,
    failed = case when g.judged then g.failed else l.failed end,
    latency = case when g.judged then g.latency else l.latency end
from given g where l.ctid = g.ctid
returning l.id as lane, l.token, l.account, l.consumer, not (l.held or l.paused) as open,
    l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, store_now() as read_at,
    g.url, g.revision, g.in_flight, g.per_second, g.signing_keys, l.next <= store_now() as is_due;

-- name: due_in
select min(next) - store_now() as due_in from lanes
where not held and not paused and due is not null and next >= :since;

-- name: lanes_of_messages
select distinct lane from settled where seq = any(:seqs::bigint[]);

-- name: lock_messages
select seq from messages where seq = any(:seqs::bigint[]) order by seq for no key update;

-- name: remove_bodies
delete from bodies b using messages m
where m.seq = any(:numbers::bigint[]) and b.day = day_of(m.accepted_at) and b.seq = m.seq
    and (select true from waiting where seq = b.seq limit 1) is null
returning length(body) as size;

-- name: remove_attempts_of
delete from attempts a using messages m
where m.seq = any(:numbers::bigint[]) and a.day = day_of(m.accepted_at) and a.seq = m.seq;

-- name: remove_dead_of
delete from dead d using messages m join lanes l using (account)
where m.seq = any(:numbers::bigint[]) and d.lane = l.id and d.seq = m.seq;

-- name: mark_removed
update removed set number = greatest(number, :number) where source = :source;

-- name: merge_minute
with moved as (
    delete from counts where minute = :minute returning minute - minute % 60 as hour, lane, accepted, delivered, failed, dead
)
insert into counts (minute, lane, accepted, delivered, failed, dead)
select hour, lane, accepted, delivered, failed, dead from moved order by lane
on conflict (minute, lane) do update set accepted = counts.accepted + excluded.accepted,
    delivered = counts.delivered + excluded.delivered, failed = counts.failed + excluded.failed,
    dead = counts.dead + excluded.dead;

-- name: redeliver
-- Puts settled deliveries (all, or those in one state) of messages with bodies at the tail of their key, with fresh
-- attempts and time to live. The lanes and the messages are locked; a message with a pending delivery is left alone.
with chosen as (
    select seq, nextval('places') as place from (
        select b.seq from messages m join bodies b on b.day = day_of(m.accepted_at) and b.seq = m.seq
        where m.seq = any(:seqs::bigint[]) and (select true from waiting where seq = m.seq limit 1) is null
        order by b.seq
    ) settled
), numbered as (
    select s.seq, s.lane, m.ordering_key as key, chosen.place,
        row_number() over (partition by s.lane, m.ordering_key order by chosen.place) as number
    from chosen cross join lateral (select * from settled where seq = chosen.seq offset 0) s
    cross join lateral (select ordering_key from messages where seq = chosen.seq offset 0) m
    where :state::text is null or s.state = :state
), moved as (
    insert into pending (lane, seq, place, key, ready, due, born)
    select new.lane, new.seq, new.place, new.key, new.key is null or (new.number = 1 and not coalesce((
            select true from pending o where o.lane = new.lane and o.key = new.key order by o.place desc limit 1
        ), false)), greatest(store_now(), l.since), coalesce(l.stopped_at, store_now()) - l.stopped_for
    from numbered new join lanes l on l.id = new.lane
    returning lane, ready
), raised as (
    delete from dead d using numbered new where d.lane = new.lane and d.seq = new.seq
), woken as (
    update lanes l set due = store_now()
    from (select distinct lane from moved where ready) new
    where l.id = new.lane and (l.due is null or l.due > store_now())
)
select count(*) from chosen;

-- name: redeliverable
-- Of these messages the settled ones that have bodies and a delivery in this state, accepted in this time span.
select m.seq from messages m
where m.seq = any(:seqs::bigint[]) and m.accepted_at >= :since and m.accepted_at < :until
    and (select true from bodies where day = day_of(m.accepted_at) and seq = m.seq limit 1)
    and (select true from settled where seq = m.seq and state = :state limit 1)
    and (select true from waiting where seq = m.seq limit 1) is null
order by m.seq;

-- name: last_message
select last_value as seq from places;

-- name: next_redelivery
-- Unless another process is working on it.
select id, account, state, since, until, done, last from redeliveries order by id limit 1 for update skip locked;

-- name: kept_bytes
-- Of bodies: the size of the files says little, since PostgreSQL reuses space without giving it back.
select coalesce(sum(length(body)), 0)::bigint as bytes from bodies;

-- name: days
-- The days that have a partition, oldest first, with their sizes.
select substring(c.relname from '\d+$')::integer as day, pg_table_size(c.oid) as bytes
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = to_regclass(:parent::text) and c.relname ~ '_d\d+$' order by 1;

-- name: make_days
-- This day's partitions, and those of the next ones.
select bool_and(make_day(day)) as made, day_of(store_now()) as today
from generate_series(day_of(store_now()), day_of(store_now()) + :ahead) day;

-- name: drop_day
select busy, dropped, bytes from drop_day(:parent, :day, :before);

-- name: hold_days
-- No day is dropped before the transaction ends.
select pg_advisory_xact_lock_shared(hashtext('fotahook days'), hashtext(current_schema()));

-- name: old_bodies
-- Some bodies, oldest first: their size, whether they are older than a time, and whether something forbids to remove them.
-- From an age of a day on, all rows of a day grow old at its end, see drop_day: this removes what that has left.
select b.seq as number, m.size, m.accepted_at < oldest_kept(:before) as is_old, coalesce((select true from waiting where seq = b.seq limit 1), false) as blocked
from (select seq from bodies where seq > :after order by seq limit :limit) b join messages m using (seq)
order by b.seq;

-- name: old_attempts
select a.number, 0 as size, a.at < oldest_kept(:before) as is_old,
    coalesce(
        (select true from bodies where day = a.day and seq = a.seq limit 1), (select true from waiting where seq = a.seq limit 1), false
    ) as blocked
from (select day, number, seq, at from attempts where number > :after order by number limit :limit) a order by a.number;

-- name: old_messages
select m.seq as number, 0 as size, m.accepted_at < :before as is_old,
    coalesce(
        (select true from bodies where day = day_of(m.accepted_at) and seq = m.seq limit 1),
        (select true from waiting where seq = m.seq limit 1), false
    ) as blocked
from (select seq, accepted_at from messages where seq > :after order by seq limit :limit) m order by m.seq;

-- name: save_credential
insert into credentials (kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at)
values (:kind, :id, :owner, :secret_hash, :accounts, :scopes, :networks, :created_at, :expires_at)
on conflict (kind, id) do update set
    owner = excluded.owner, secret_hash = excluded.secret_hash, accounts = excluded.accounts,
    scopes = excluded.scopes, networks = excluded.networks, created_at = excluded.created_at, expires_at = excluded.expires_at;

-- name: lock_credential
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and id = :id and (expires_at is null or expires_at > store_now()) for update;

-- name: event_ends
-- The last number drawn for each source, visible or not, and the last that retention removed.
select m.last_value - (not m.is_called)::integer as messages, a.last_value - (not a.is_called)::integer as attempts,
    c.last_value - (not c.is_called)::integer as callbacks, l.last_value - (not l.is_called)::integer as lanes,
    (select number from removed where source = 'messages') as removed_messages,
    (select number from removed where source = 'attempts') as removed_attempts,
    (select number from removed where source = 'callbacks') as removed_callbacks,
    (select number from removed where source = 'lanes') as removed_lanes
from places m, attempts_number_seq a, callback_history_number_seq c, lane_changes_number_seq l;

-- name: next_transaction
-- The number of a transaction later than all that have drawn numbers so far.
select pg_current_xact_id()::text::bigint;

-- name: oldest_transaction
-- All transactions before this one are over: their rows are visible, or were rolled back.
select pg_snapshot_xmin(pg_current_snapshot())::text::bigint;

-- name: messages_accepted
select seq as position, accepted_at as at, account, id, type, ordering_key, size
from messages where seq > :after and seq <= :last order by seq limit :limit;

-- name: attempts_finished
-- The sum makes the planner count by an index of the message, not by one of the numbers.
select a.number as position, a.at, l.account, m.id, coalesce(nullif(l.consumer, ''), l.account) as lane, a.started_at,
    a.url, a.outcome, a.status as http_status, a.error_code, (a.phases::json ->> 'total')::double precision as milliseconds, a.state,
    (select count(*) from attempts b where b.day = a.day and b.seq = a.seq and b.number + 0 <= a.number) as number
from (
    select * from attempts where number > :after and number <= :last order by number limit :limit
) a join messages m on m.seq = a.seq join lanes l on l.id = a.lane
order by a.number;

-- name: callbacks_changed
select h.number as position, h.at, h.account, h.url, h.actor, h.revision,
    case
        when h.url is null then 'deregistered'
        when (
            select url from callback_history b where b.account = h.account and b.revision = h.revision - 1
        ) is not null then 'replaced'
        else 'registered'
    end as action
from callback_history h where h.number > :after and h.number <= :last order by h.number limit :limit;

-- name: lanes_changed
select c.number as position, c.at, l.account, coalesce(nullif(l.consumer, ''), l.account) as lane, c.state, c.until,
    c.reason
from (
    select * from lane_changes where number > :after and number <= :last
    order by number limit :limit
) c join lanes l on l.id = c.lane
order by c.number;

-- name: remove_counts
delete from counts where (minute, lane) in (
    select minute, lane from counts where minute < :before
    order by minute limit :limit for update skip locked
) returning minute;

-- name: backlog
-- Of the whole store. An index finds the oldest message of each lane, and there are fewer lanes than messages.
select (select count(*) from pending) as pending, (select count(*) from dead) as dead,
    store_now() - (
        select accepted_at from messages where seq = (
            select min(head.seq) from lanes l
            cross join lateral (select p.seq from pending p where p.lane = l.id order by p.seq limit 1) head
        )
    ) as oldest_age;

-- name: stats
select minute, sum(accepted)::bigint as accepted, sum(delivered)::bigint as delivered, sum(failed)::bigint as failed,
    sum(dead)::bigint as dead
from counts
where minute > floor(store_now() / 60) - :minutes
    and (:among::text[] is null or lane in (select id from lanes where account = any(:among)))
group by minute order by minute;

-- name: this_minute
select floor(store_now() / 60)::bigint;

-- name: find_campaigns
-- :names is JSON, accounts and campaigns.
select c.id, c.account, c.campaign
from json_array_elements(:names::json) given join campaigns c on c.account = given ->> 0 and c.campaign = given ->> 1;

-- name: add_campaigns
insert into campaigns (account, campaign) select given ->> 0, given ->> 1 from json_array_elements(:names::json) given
on conflict (account, campaign) do nothing;

-- name: record_reports
-- The state guard: a status that goes back in the life cycle changes nothing, nor does a result that is known already. Among
-- results, ThingSpace's report is right. Returns those that the guard held off.
with given as (
    select * from unnest(
        :seqs::bigint[], :campaigns::bigint[], :devices::text[], :statuses::text[], :ranks::integer[], :by_report::boolean[],
        :details::text[]
    ) as given (seq, campaign, device, status, rank, by_report, detail)
), written as (
    insert into ledger (campaign, device, seq, status, rank, at, by_report, repairs, detail)
    select campaign, device, seq, status, rank, store_now(), by_report, by_report::integer, detail from given
    on conflict (campaign, device) do update set
        seq = excluded.seq, status = excluded.status, rank = excluded.rank, at = excluded.at, by_report = excluded.by_report,
        repairs = ledger.repairs + excluded.repairs, detail = excluded.detail
    where excluded.rank > ledger.rank
        or (excluded.rank = ledger.rank and excluded.status <> ledger.status)
        or (excluded.rank = ledger.rank and excluded.rank < :final and excluded.seq > ledger.seq and not ledger.by_report)
        or (excluded.by_report and excluded.rank >= :final and excluded.status <> ledger.status)
    returning seq, device
)
select seq, device from given where not exists (
    select from written where written.seq = given.seq and written.device = given.device
);

-- name: add_notes
insert into notes (seq, note) select (given ->> 0)::bigint, given ->> 1 from json_array_elements(:rows::json) given;

-- name: expect_devices
insert into ledger (campaign, device) select :campaign, device from unnest(:devices::text[]) device
on conflict (campaign, device) do nothing;

-- name: find_device
select c.account, c.campaign, l.device, l.status, l.at, l.detail, null as told
from campaigns c join ledger l on l.campaign = c.id and l.device = :device
where l.status is not null and (:among::text[] is null or c.account = any(:among)) order by l.at desc limit :limit;

-- name: overdue_devices
-- Of campaigns that ended within the last :seconds.
select count(*) as devices from campaigns c join ledger l on l.campaign = c.id
where c.ends_at <= store_now() and c.ends_at > store_now() - :seconds and l.device <> '' and l.rank < :final;

-- name: now
select store_now() as now;
