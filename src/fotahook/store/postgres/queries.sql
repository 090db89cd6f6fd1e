-- Every statement of the PostgreSQL store, by name. Parameters are named; store_now() is the server's clock.
--
-- A transaction that changes deliveries first locks their lanes, in id order and in a statement of its own, so that the
-- next statement sees everything committed before. The lock order is the same everywhere: lanes, then messages.
--
-- A condition "there is any" for each row is a `select true … limit 1`: for `exists` the planner may read everything that
-- is pending into a hash table first. An `order by` in it selects the index.
-- Conditions on one message's deliveries exclude states (`not in`) instead of naming them, or the planner may use an
-- index by lane.

-- name: lock_lanes
select id, account, consumer, token, leased_until,
    case when held or paused then 'other' when leased_until > store_now() then 'leased'
        when due is null and wait_until <= store_now() then 'idle' else 'other' end as use
from lanes
where id = any(array(
    select lanes.id
    from unnest(:accounts::text[], :consumers::text[]) as named (account, consumer)
    join lanes using (account, consumer)
    union all select unnest(:ids::bigint[])
))
order by id for no key update;

-- name: add_lanes
-- A lane to a callback starts held, and the register call opens it. Other lanes have a destination from the start.
insert into lanes (account, consumer, held, stopped_at)
select account, consumer, consumer = '', case when consumer = '' then store_now() end
from unnest(:accounts::text[], :consumers::text[]) as named (account, consumer)
order by account, consumer
on conflict (account, consumer) do nothing;

-- name: take_room
-- Room that the same transaction gives back: a write that a full or read-only store refuses, as it would a message.
insert into credentials (kind, id, owner, secret_hash, scopes, created_at)
values ('probe', :id, '', decode(repeat('00', 1024), 'hex'), '{}', 0);

-- name: give_room_back
delete from credentials where kind = 'probe' and id = :id;

-- name: write_nothing
-- Changes nothing, and fails if the store cannot be written.
update lanes set token = token where false;

-- name: callback
select account, url, revision, registered_at from callbacks where account = :account;

-- name: put_callback
insert into callbacks (account, url, revision, registered_at) values (:account, :url, :revision, store_now())
on conflict (account) do update set
    url = excluded.url, revision = excluded.revision, registered_at = excluded.registered_at
returning account, url, revision, registered_at;

-- name: drop_callback
delete from callbacks where account = :account returning account;

-- name: add_history
insert into callback_history (account, revision, url, actor, at)
select :account, coalesce(max(revision), 0) + 1, :url, :actor, store_now()
from callback_history where account = :account
returning revision;

-- name: open_callback_lane
-- The health of the old endpoint says nothing about the new one.
update lanes set
    held = false, wait_until = 0, failures = 0, "window" = 4, refused = 0, reason = null,
    succeeded = 0, failed = 0, latency = 0,
    stopped_for = stopped_for + case when paused then 0 else store_now() - coalesce(stopped_at, store_now()) end,
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
    paused = false, wait_until = 0, failures = 0, "window" = 4, refused = 0, reason = null,
    succeeded = 0, failed = 0, latency = 0,
    stopped_for = stopped_for + case when held then 0 else store_now() - coalesce(stopped_at, store_now()) end,
    stopped_at = case when held then stopped_at end
where account = :account and consumer = :consumer;

-- name: end_backoff
-- Deliveries in backoff become due, since the endpoint was replaced or repaired. The lane is locked.
update deliveries d set due = store_now() from lanes l
where l.account = :account and l.consumer = :consumer
    and d.lane = l.id and d.state = 'ready' and d.due > store_now() and d.strikes > 0;

-- name: lanes_of_origin
-- Lanes that wait for a receiver.
select l.id as lane from callbacks c join lanes l on l.account = c.account and l.consumer = ''
where c.origin = :origin and l.failures > 0 and l.wait_until > store_now() and not (l.held or l.paused) limit :limit;

-- name: end_backoffs
update deliveries set due = store_now()
where lane = any(:lanes::bigint[]) and state = 'ready' and due > store_now() and strikes > 0;

-- name: wake_lanes
update lanes l set wait_until = store_now(),
    due = (select min(due) from deliveries where lane = l.id and state = 'ready')
where id = any(:lanes::bigint[]);

-- name: recompute_due
update lanes l set due = (select min(due) from deliveries where lane = l.id and state = 'ready')
where l.account = :account and l.consumer = :consumer;

-- name: pending_usage
select count(*) as messages, coalesce(sum(size), 0)::bigint as bytes, coalesce(max(seq), 0) as last from (
    select d.seq, m.size from lanes l join deliveries d on d.lane = l.id join messages m on m.seq = d.seq
    where l.account = :account and l.consumer = '' and d.state in ('ready', 'behind') and d.seq > :after
    order by d.seq limit :limit
) pending;

-- name: add_audit
insert into audit (actor, address, action, account, subject, detail)
values (:actor, :address, :action, :account, :subject, :detail);

-- name: audit
-- Newest first.
select number, at, actor, address, action, account, subject, detail from audit
where number < :before and (:among::text[] is null or account = any(:among))
order by number desc limit :limit;

-- name: remove_audit
delete from audit where number in (select number from audit where at < store_now() - :seconds order by number limit :limit)
returning number;

-- name: limits
select in_flight, per_second from limits where account = :account;

-- name: set_limits
insert into limits (account, in_flight, per_second) values (:account, :in_flight, :per_second)
on conflict (account) do update set in_flight = excluded.in_flight, per_second = excluded.per_second;

-- name: forget_keys
-- Idempotency keys whose window is over: the next message with such a key is a new one.
update messages m set idempotency_key = null
from unnest(:accounts::text[], :idempotency_keys::text[], :windows::double precision[])
    as given (account, idempotency_key, seconds)
where m.account = given.account and m.idempotency_key = given.idempotency_key
    and m.accepted_at + given.seconds <= store_now();

-- name: add_messages
-- In the given order, except messages with a known idempotency key. If another process is storing the same key, this
-- waits for it, and then takes the message for a duplicate.
insert into messages (id, account, type, ordering_key, idempotency_key, body, size, sha256, accepted_at)
select id, account, type, ordering_key, idempotency_key, body, length(body), sha256, store_now()
from unnest(
    :ids::text[], :accounts::text[], :types::text[], :ordering_keys::text[], :idempotency_keys::text[],
    :bodies::bytea[], :digests::bytea[]
) with ordinality as given (id, account, type, ordering_key, idempotency_key, body, sha256, number)
order by number
on conflict (account, idempotency_key) where idempotency_key is not null do nothing
returning id, seq, accepted_at;

-- name: add_deliveries
-- Makes the lanes due; a lane that is due already costs no write. Those in :taken were idle, and are leased.
with added as (
    insert into deliveries (seq, lane, place, key, state, due, born)
    select new.seq, new.lane, new.seq, new.key, case when new.key is not null and (new.number > 1 or (
            select true from deliveries d
            where d.lane = new.lane and d.key = new.key and d.state in ('ready', 'behind') order by d.place limit 1
        )) then 'behind' else 'ready' end, store_now(), coalesce(l.stopped_at, store_now()) - l.stopped_for
    from (
        select *, row_number() over (partition by lane, key order by seq) as number
        from unnest(:lanes::bigint[], :seqs::bigint[], :keys::text[]) as given (lane, seq, key)
    ) new
    join lanes l on l.id = new.lane
    returning lane, state
), counted as (
    insert into counts (minute, lane, accepted)
    select floor(store_now() / 60), lane, count(*) from added group by lane
    on conflict (minute, lane) do update set accepted = counts.accepted + excluded.accepted
), woken as (
    update lanes l set due = store_now(), token = l.token + new.taken::integer,
        leased_until = case when new.taken then store_now() + :seconds::double precision else l.leased_until end
    from (select distinct lane, lane = any(:taken::bigint[]) as taken from added where state = 'ready') new
    where l.id = new.lane and (l.due is null or l.due > store_now())
    returning l.id as lane, l.token, l.account, l.consumer, true as open, l.failures, l."window", l.refused, l.reason,
        l.succeeded, l.failed, l.latency, store_now() as read_at, new.taken
)
select woken.*, f.url, f.revision, f.in_flight, f.per_second, f.signing_keys
from woken join lane_facts f using (lane) where woken.taken;

-- name: count_duplicates
update messages m set duplicates = m.duplicates + given.times
from unnest(:accounts::text[], :idempotency_keys::text[], :times::bigint[]) as given (account, idempotency_key, times)
where m.account = given.account and m.idempotency_key = given.idempotency_key
returning m.account, m.idempotency_key, m.id, m.sha256;

-- name: message
-- A key of \x01 and the hash means that the message is deduplicated by its bytes.
select seq, id, account, type, ordering_key, nullif(idempotency_key, E'\x01' || encode(sha256, 'hex')) as idempotency_key,
    body, size, sha256, accepted_at, duplicates
from messages where id = :id;

-- name: delivery_statuses
select d.seq, l.consumer, d.state, d.attempts, d.due, d.settled_at, d.last_outcome,
    coalesce(l.stopped_at, store_now()) - l.stopped_for - d.born as age, l.stopped_at is not null as stopped,
    case when d.state = 'behind' then (
        select m.id from deliveries head join messages m on m.seq = head.seq
        where head.lane = d.lane and head.key = d.key and head.state in ('ready', 'behind') order by head.place limit 1
    ) end as behind
from deliveries d join lanes l on l.id = d.lane where d.seq = any(:seqs::bigint[]) order by l.consumer;

-- name: attempts
select a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix, a.phases, a.excerpt, a.resent
from attempts a join messages m on m.seq = a.seq where m.id = :id order by a.number;

-- name: recent_attempts
select m.id as message, m.accepted_at, a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix, a.phases, a.excerpt,
    a.resent, (select count(*) from attempts b where b.seq = a.seq and b.number + 0 <= a.number) as number
from attempts a join messages m on m.seq = a.seq
order by a.number desc limit :limit;

-- name: account_attempts
-- Of the newest messages, and of the oldest that still wait: those are the ones that a failing endpoint is tried with.
select m.id as message, m.accepted_at, a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix, a.phases, a.excerpt,
    a.resent, (select count(*) from attempts b where b.seq = a.seq and b.number + 0 <= a.number) as number
from attempts a join messages m on m.seq = a.seq
where a.seq in (
    select seq from (select seq from messages where account = :account order by seq desc limit :messages) newest
    union all
    select seq from (
        select d.seq from lanes l join deliveries d on d.lane = l.id
        where l.account = :account and d.state in ('ready', 'behind') order by d.seq limit :messages
    ) oldest
)
order by a.number desc limit :limit;

-- name: lanes
select l.consumer, l.held, l.paused, l.wait_until, l.wait_until > store_now() as waiting,
    l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, b.pending, b.dead, b.oldest_accepted_at
from lanes l join backlogs b on b.lane = l.id where l.account = :account order by l.consumer;

-- name: accounts
select l.account, c.url, c.revision, c.registered_at, m.in_flight, m.per_second,
    l.consumer, l.held, l.paused, l.wait_until, l.wait_until > store_now() as waiting,
    l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, b.pending, b.dead, b.oldest_accepted_at
from (
    select * from lanes l
    where l.consumer = '' and l.account > :after and (:among::text[] is null or l.account = any(:among))
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

-- name: state_counts
select count(*) filter (where not l.held and not l.paused and l.wait_until <= store_now()) as open,
    count(*) filter (where not l.held and not l.paused and l.wait_until > store_now()) as waiting,
    count(*) filter (where l.held and not l.paused) as held,
    count(*) filter (where l.paused) as paused,
    count(*) filter (where l.failures > 0 or l.reason is not null or (l.held and l.due is not null)) as trouble
from lanes l where l.consumer = '' and (:among::text[] is null or l.account = any(:among));

-- name: callback_history
select url, actor, at, revision from callback_history where account = :account order by revision desc limit :limit;

-- name: recent
select seq from messages where account = :account and seq < :before order by seq desc limit :limit;

-- name: recent_pending
-- Pending and dead deliveries have an index by lane, so that a few among very many messages are found at once.
select distinct d.seq from lanes l
cross join lateral (
    select seq from deliveries
    where lane = l.id and state in ('ready', 'behind') and seq < :before order by seq desc limit :limit
) d
where l.account = :account order by d.seq desc limit :limit;

-- name: recent_dead
select distinct d.seq from lanes l
cross join lateral (
    select seq from deliveries where lane = l.id and state = 'dead' and seq < :before order by seq desc limit :limit
) d
where l.account = :account order by d.seq desc limit :limit;

-- name: matching
select m.seq, m.id, m.account, m.type, m.ordering_key,
    nullif(m.idempotency_key, E'\x01' || encode(m.sha256, 'hex')) as idempotency_key,
    null::bytea as body, m.size, m.sha256, m.accepted_at, m.duplicates
from messages m
where m.seq = any(:seqs::bigint[])
    and (:type::text is null or m.type = :type) and (:ordering_key::text is null or m.ordering_key = :ordering_key)
    and (:since::double precision is null or m.accepted_at >= :since)
    and (:until::double precision is null or m.accepted_at < :until)
    and (:state::text is null or (
        select true from deliveries d
        where d.seq = m.seq and (d.state = :state or (:state = 'pending' and d.state in ('ready', 'behind'))) limit 1
    ))
order by m.seq desc limit :limit;

-- name: lease
-- The lanes that are longest overdue, except locked ones. `late`: how many lanes are overdue by more than a second. If
-- there are more of these than the statement leased, a lock hides one: see lease_late.
with due as (
    select id, next from lanes
    where not held and not paused and due is not null and next <= store_now()
    order by next limit :limit for no key update skip locked
), taken as (
    update lanes l set token = l.token + 1, leased_until = store_now() + :seconds::double precision
    from due where l.id = due.id
    returning l.id as lane, l.token, l.account, l.consumer, not (l.held or l.paused) as open,
        l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, store_now() as read_at, due.next, due.next <= store_now() - 1 as was_late
), late as (
    select count(*) as late from (
        select from lanes
        where not held and not paused and due is not null and next <= store_now() - 1 limit :limit
    ) overdue
)
select late.late, taken.*, f.url, f.revision, f.in_flight, f.per_second, f.signing_keys
from late left join (taken join lane_facts f using (lane)) on true
order by taken.next;

-- name: lease_late
-- Late lanes, waiting for their locks: a busy lane would starve otherwise.
with due as (
    select id from lanes
    where id = any(array(
            select id from lanes
            where not held and not paused and due is not null and next <= store_now() - 1 order by next limit :limit
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
from taken join lane_facts f using (lane);

-- name: fetch
-- For several leases at once; `number` is the lease that a row is for. :without has the text of an array for each lease.
select asked.number, d.lane, d.seq, m.id, m.account, m.type, m.ordering_key, m.body, m.accepted_at,
    d.attempts, d.strikes, coalesce(l.stopped_at, store_now()) - l.stopped_for - d.born as age,
    exists (
        select from deliveries b
        where b.lane = d.lane and b.key = d.key and b.state in ('ready', 'behind') and b.seq <> d.seq
    ) as followed,
    (select note from notes where seq = d.seq) as note
from unnest(:lanes::bigint[], :limits::bigint[], :sizes::bigint[], :without::text[])
    with ordinality as asked (lane, most, max_bytes, without, number)
join lanes l on l.id = asked.lane
cross join lateral (
    select found.*, sum(size) over (order by due, place rows unbounded preceding) - size as size_before
    from (
        select d.*, m.size from deliveries d join messages m using (seq)
        where d.lane = asked.lane and d.state = 'ready' and d.due <= store_now()
            and d.seq <> all(asked.without::bigint[])
        order by d.due, d.place limit asked.most
    ) found
) d
join messages m on m.seq = d.seq
where d.size_before <= asked.max_bytes
order by asked.number, d.due, d.place;

-- name: mark_handled
-- In the transaction of a handler. Another attempt at the same delivery waits for its end here; none if it is handled.
-- If the commit's response is lost, the attempt fails, and settle keeps the mark: the next attempt finds it.
update deliveries set last_outcome = 'handled'
where lane = :lane and seq = :seq and state = 'ready' and last_outcome is distinct from 'handled'
returning seq;

-- name: settle
with given as (
    select * from unnest(
        :lanes::bigint[], :seqs::bigint[], :states::text[], :delays::double precision[], :attempts::integer[],
        :strikes::integer[], :started::double precision[], :urls::text[], :outcomes::text[], :statuses::integer[],
        :error_codes::text[], :fixes::text[], :phases::text[], :excerpts::text[], :resent::boolean[]
    ) with ordinality as given (
        lane, seq, state, delay, attempts,
        strikes, started_at, url, outcome, status, error_code, fix, phases, excerpt, resent, number
    )
), counted as (
    insert into counts (minute, lane, delivered, failed, dead)
    select floor(store_now() / 60), lane, count(*) filter (where outcome = 'delivered'),
        count(*) filter (where outcome = 'failed'), count(*) filter (where state = 'dead')
    from given group by lane
    on conflict (minute, lane) do update set delivered = counts.delivered + excluded.delivered,
        failed = counts.failed + excluded.failed, dead = counts.dead + excluded.dead
), settled as (
    update deliveries d set
        state = given.state, due = store_now() + given.delay, attempts = given.attempts, strikes = given.strikes,
        last_outcome = case when d.last_outcome = 'handled' and given.outcome <> 'delivered' then 'handled'
            else given.outcome end,
        settled_at = case when given.state = 'ready' then null else store_now() end
    from given where d.seq = given.seq and d.lane = given.lane and d.state not in ('behind', 'delivered', 'dead')
)
insert into attempts (seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt, resent, at, state)
select seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt, resent, store_now(),
    replace(state, 'ready', 'pending')
from given order by number;

-- name: promote
-- The first pending delivery of each of these keys.
update deliveries d set state = 'ready'
from (
    select head.seq, settled.lane
    from (select distinct * from unnest(:lanes::bigint[], :keys::text[]) as given (lane, key)) settled
    cross join lateral (
        select seq, state from deliveries
        where lane = settled.lane and key = settled.key and state in ('ready', 'behind') order by place limit 1
    ) head
    where head.state = 'behind'
) next
where d.seq = next.seq and d.lane = next.lane;

-- name: keep_lanes
-- Each lane's verdict, unless it is about an older callback, its lease, and its due time by its deliveries.
with given as (
    select given.*, f.revision = given.spoke_of as judged, f.url, f.revision, f.in_flight, f.per_second, f.signing_keys
    from unnest(
        :lanes::bigint[], :revisions::bigint[], :keeps::double precision[], :waits::double precision[],
        :pauses::boolean[], :failures::integer[], :windows::integer[], :refusals::integer[], :reasons::text[],
        :succeeded::double precision[], :failed::double precision[], :latencies::double precision[]
    ) as given (lane, spoke_of, keep, wait, pause, failures, "window", refused, reason, succeeded, failed, latency)
    join lane_facts f using (lane)
)
update lanes l set
    leased_until = case when g.keep > 0 then store_now() + g.keep else 0 end,
    due = (select min(due) from deliveries where lane = l.id and state = 'ready'),
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
from given g where l.id = g.lane
returning l.id as lane, l.token, l.account, l.consumer, not (l.held or l.paused) as open,
    l.failures, l."window", l.refused, l.reason, l.succeeded, l.failed, l.latency, store_now() as read_at, g.url, g.revision, g.in_flight, g.per_second, g.signing_keys,
    l.next <= store_now() as is_due;

-- name: due_in
select min(next) - store_now() as due_in from lanes where not held and not paused and due is not null;

-- name: lanes_of_messages
select distinct lane from deliveries where seq = any(:seqs::bigint[]);

-- name: lock_messages
select seq from messages where seq = any(:seqs::bigint[]) order by seq for no key update;

-- name: redeliver
-- Moves deliveries (all, or those in one state) of settled messages with bodies to the tail of their key, with fresh
-- attempts and time to live. The lanes and the messages are locked; a message with a pending delivery is left alone.
with chosen as (
    select seq, nextval('places') as place from (
        select seq from messages m where seq = any(:seqs::bigint[]) and body is not null
            and not exists (select from deliveries d where d.seq = m.seq and d.state not in ('delivered', 'dead'))
        order by seq
    ) settled
), numbered as (
    select d.seq, d.lane, chosen.place,
        row_number() over (partition by d.lane, d.key order by chosen.place) as number
    from chosen join deliveries d using (seq) where :state::text is null or d.state = :state
), moved as (
    update deliveries d set
        place = new.place, due = store_now(), attempts = 0, strikes = 0, settled_at = null,
        born = coalesce(l.stopped_at, store_now()) - l.stopped_for,
        state = case when d.key is not null and (new.number > 1 or (
            select true from deliveries o
            where o.lane = d.lane and o.key = d.key and o.state in ('ready', 'behind') order by o.place limit 1
        )) then 'behind' else 'ready' end
    from numbered new join lanes l on l.id = new.lane
    where d.seq = new.seq and d.lane = new.lane
    returning d.lane, d.state
), woken as (
    update lanes l set due = store_now()
    from (select distinct lane from moved where state = 'ready') new
    where l.id = new.lane and (l.due is null or l.due > store_now())
)
select count(*) from chosen;

-- name: redeliverable
-- Settled messages of an account that have bodies and a delivery in this state, accepted in this time span.
select m.seq from messages m
where m.account = :account and m.seq > :done and m.seq <= :last
    and m.accepted_at >= :since and m.accepted_at < :until and m.body is not null
    and (select true from deliveries d where d.seq = m.seq and d.state = :state limit 1)
    and not exists (select from deliveries d where d.seq = m.seq and d.state not in ('delivered', 'dead'))
order by m.seq limit :limit;

-- name: count_redeliverable
select count(*) from messages m
where m.account = :account and m.seq <= :last
    and m.accepted_at >= :since and m.accepted_at < :until and m.body is not null
    and exists (select from deliveries d where d.seq = m.seq and d.state = :state)
    and not exists (select from deliveries d where d.seq = m.seq and d.state not in ('delivered', 'dead'));

-- name: last_message
select coalesce(max(seq), 0) from messages where account = :account;

-- name: add_redelivery
insert into redeliveries (account, state, since, until, last) values (:account, :state, :since, :until, :last);

-- name: next_redelivery
-- Unless another process is working on it.
select id, account, state, since, until, done, last from redeliveries order by id limit 1 for update skip locked;

-- name: advance_redelivery
update redeliveries set done = :done where id = :id;

-- name: end_redelivery
delete from redeliveries where id = :id;

-- name: kept_bytes
-- Of bodies: the size of the files says little, since PostgreSQL reuses space without giving it back.
select coalesce(sum(size), 0)::bigint from messages where body is not null;

-- name: old_bodies
-- Some bodies, oldest first, with whether they are older than :seconds, and pending.
select m.seq, m.size, m.accepted_at, m.accepted_at < store_now() - :seconds::double precision as is_old,
    (select true from deliveries d where d.seq = m.seq and d.state not in ('delivered', 'dead') limit 1) as pending
from messages m
where m.body is not null and (m.accepted_at, m.seq) > (:after::double precision, :seq::bigint)
order by m.accepted_at, m.seq limit :limit;

-- name: prune
update messages m set body = null where seq = any(:seqs::bigint[])
    and not exists (select from deliveries d where d.seq = m.seq and d.state not in ('delivered', 'dead'))
returning size;

-- name: save_credential
insert into credentials (kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at)
values (:kind, :id, :owner, :secret_hash, :accounts, :scopes, :networks, :created_at, :expires_at)
on conflict (kind, id) do update set
    owner = excluded.owner, secret_hash = excluded.secret_hash, accounts = excluded.accounts,
    scopes = excluded.scopes, networks = excluded.networks, created_at = excluded.created_at, expires_at = excluded.expires_at;

-- name: drop_expired_credentials
delete from credentials where kind = :kind and expires_at <= store_now();

-- name: credential
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and id = :id and (expires_at is null or expires_at > store_now());

-- name: lock_credential
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and id = :id and (expires_at is null or expires_at > store_now()) for update;

-- name: credentials
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and owner = :owner and (expires_at is null or expires_at > store_now()) order by created_at, id;

-- name: drop_credentials
delete from credentials where kind = :kind and id = any(:ids::text[]);

-- name: event_ends
-- The last number drawn for each source, visible or not, and the last lane change that retention removed.
select m.last_value - (not m.is_called)::integer as messages, a.last_value - (not a.is_called)::integer as attempts,
    c.last_value - (not c.is_called)::integer as callbacks, l.last_value - (not l.is_called)::integer as lanes,
    coalesce((select case when state = 'removed' then number end from lane_changes order by number limit 1), 0) as removed
from places m, attempts_number_seq a, callback_history_number_seq c, lane_changes_number_seq l;

-- name: next_transaction
-- The number of a transaction later than all that have drawn numbers so far.
select pg_current_xact_id()::text::bigint;

-- name: oldest_transaction
-- All transactions before this one are over: their rows are visible, or were rolled back.
select pg_snapshot_xmin(pg_current_snapshot())::text::bigint;

-- name: messages_accepted
select seq as position, accepted_at as at, account, id as message, type, ordering_key, size
from messages where seq > :after and seq <= :last order by seq limit :limit;

-- name: attempts_finished
-- The sum makes the planner count by an index of the message, not by one of the numbers.
select a.number, coalesce(a.at, a.started_at) as at, l.account, m.id as message, l.consumer, a.started_at, a.url,
    a.outcome, a.status, a.error_code, a.phases,
    coalesce(a.state, case a.outcome when 'delivered' then 'delivered' else 'pending' end) as state,
    (select count(*) from attempts b where b.seq = a.seq and b.number + 0 <= a.number) as ordinal
from (
    select * from attempts where number > :after and number <= :last order by number limit :limit
) a join messages m on m.seq = a.seq join lanes l on l.id = a.lane
order by a.number;

-- name: callbacks_changed
select h.number as position, h.at, h.account, h.url, h.actor, h.revision,
    (select url from callback_history b where b.account = h.account and b.revision = h.revision - 1) is not null as before
from callback_history h where h.number > :after and h.number <= :last order by h.number limit :limit;

-- name: lanes_changed
select c.number as position, c.at, l.account, l.consumer, c.state, c.until, c.reason
from (
    select * from lane_changes where number > :after and number <= :last and state <> 'removed'
    order by number limit :limit
) c join lanes l on l.id = c.lane
order by c.number;

-- name: old_lane_change
-- The last of some lane changes to remove; null if there are none.
select max(number) from (
    select number from lane_changes where at < store_now() - :seconds and state <> 'removed' order by number limit :limit
) old;

-- name: remove_lane_changes
delete from lane_changes where number < :number returning number;

-- name: mark_lane_change
update lane_changes set state = 'removed' where number = :number;

-- name: remove_counts
delete from counts where (minute, lane) in (
    select minute, lane from counts where minute < floor(store_now() / 60) - :minutes
    order by minute limit :limit for update skip locked
) returning minute;

-- name: backlog
-- Of the whole store. An index finds the oldest message of each lane, and there are fewer lanes than messages.
select (select count(*) from deliveries where state in ('ready', 'behind')) as pending,
    (select count(*) from deliveries where state = 'dead') as dead,
    store_now() - (
        select accepted_at from messages where seq = (
            select min(head.seq) from lanes l cross join lateral (
                select d.seq from deliveries d
                where d.lane = l.id and d.state in ('ready', 'behind') order by d.seq limit 1
            ) head
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

-- name: change_campaign
-- Null leaves a column as it is.
update campaigns set ends_at = coalesce(:ends_at, ends_at), cursor = coalesce(:cursor, cursor) where id = :campaign;

-- name: ledger_campaigns
select c.id, c.account, c.campaign, l.status, coalesce(l.rank, 0) as rank, l.at, c.ends_at, c.cursor
from campaigns c left join ledger l on l.campaign = c.id and l.device = ''
where c.id > :after and (:account::text is null or (c.account = :account and c.campaign = :campaign))
order by c.id limit :limit;

-- name: ledger_devices
select device, status, rank, at, by_report, repairs from ledger
where campaign = :campaign and device > :after and (:among::text[] is null or device = any(:among))
order by device limit :limit;

-- name: ledger_counts
select coalesce(status, '') as status, rank >= :final as is_final, count(*) as devices, sum(repairs)::bigint as repairs
from ledger where campaign = :campaign and device <> '' group by 1, 2 order by 1;

-- name: latest_campaigns
select c.id, c.account, c.campaign, l.status, coalesce(l.rank, 0) as rank, l.at, c.ends_at, c.cursor
from campaigns c left join ledger l on l.campaign = c.id and l.device = ''
where c.id < :before and (:among::text[] is null or c.account = any(:among))
    and (:campaign::text is null or substr(c.campaign, 1, length(:campaign::text)) = :campaign::text)
order by c.id desc limit :limit;

-- name: campaign_devices
-- Of so many devices behind :after, those of a kind. The last one that was looked at tells where to go on.
select d.device, d.status, d.rank, d.at, d.by_report, d.repairs, d.detail, m.id as message, d.fits
from (
    select l.*, case :kind::text when 'succeeded' then l.rank > :final when 'failed' then l.rank = :final
    when 'silent' then l.rank < :final else true end as fits from ledger l
    where l.campaign = :campaign and l.device > :after order by l.device limit :scan
) d left join messages m on m.seq = d.seq
order by d.device;

-- name: campaign_reasons
select coalesce(detail, '') as reason, count(*) as devices from ledger
where campaign = :campaign and device <> '' and rank = :failed group by 1 order by 2 desc, 1 limit :limit;

-- name: find_device
select c.account, c.campaign, l.device, l.status, l.at, l.detail, null as told
from campaigns c join ledger l on l.campaign = c.id and l.device = :device
where l.status is not null and (:among::text[] is null or c.account = any(:among)) order by l.at desc limit :limit;

-- name: reports_of_campaign
select c.campaign, l.device, l.status, l.at, l.detail, null as told from campaigns c join ledger l on l.campaign = c.id
where c.account = :account and c.campaign = :campaign and l.status is not null
    and l.device >= coalesce(:after::text, '') and (:after::text is null or l.device <> :after::text)
order by l.device limit :limit;

-- name: reports_of_device
select c.campaign, l.device, l.status, l.at, l.detail, i.detail as told from campaigns c
join ledger l on l.campaign = c.id and l.device = :device
left join ledger i on i.campaign = c.id and i.device = ''
where c.account = :account and c.campaign > :after::text and l.status is not null order by c.campaign limit :limit;

-- name: overdue_devices
-- Of campaigns that ended within the last :seconds.
select count(*) as devices from campaigns c join ledger l on l.campaign = c.id
where c.ends_at <= store_now() and c.ends_at > store_now() - :seconds and l.device <> '' and l.rank < :final;

-- name: forget_reports
delete from ledger where campaign = :campaign and device in (
    select l.device from ledger l join campaigns c on c.id = l.campaign
    where l.campaign = :campaign and coalesce(l.at, c.ends_at) < store_now() - :seconds limit :limit
) returning device;
