-- The statements of the SQLite store besides those that all stores share, by name. Parameters are named; :now is its clock.

-- name: take_room
-- Room that the same transaction gives back: a write that a full or read-only store refuses, as it would a message.
insert into credentials (kind, id, owner, secret_hash, scopes, created_at)
values ('probe', :id, '', zeroblob(65536), '', 0);

-- name: put_callback
insert into callbacks (account, url, revision, registered_at) values (:account, :url, :revision, :now)
on conflict (account) do update set url = :url, revision = :revision, registered_at = :now
returning account, url, revision, registered_at;

-- name: trim_history
-- The oldest changes of a callback beyond those that are kept, a few at a time.
delete from callback_history where number in (
    select number from callback_history where account = :account and revision <= :revision order by revision limit :limit
) returning number;

-- name: open_callback_lane
-- The health of the old endpoint says nothing about the new one.
update lanes set
    held = 0, wait_until = 0, failures = 0, window = 4, refused = 0, reason = null,
    succeeded = 0, failed = 0, latency = 0,
    stopped_for = stopped_for + case when paused = 0 then max(0, :now - coalesce(stopped_at, :now)) else 0 end,
    stopped_at = case when paused = 0 then null else stopped_at end
where account = :account and consumer = '';

-- name: hold_callback_lane
update lanes set held = 1, stopped_at = coalesce(stopped_at, :now) where account = :account and consumer = '';

-- name: known_messages
-- Messages that may have the idempotency keys, or the bytes, with these hashes. Rows: hash.
select account, idempotency_key, id, sha256, accepted_at
from messages indexed by messages_by_key_hash where key_hash in (values {rows});

-- name: known_message
select id, sha256 from messages indexed by messages_by_key_hash
where key_hash = key_hash(:account, :key) and account = :account and idempotency_key = :key;

-- name: forget_keys
update messages set idempotency_key = null, key_hash = null where id in (select value from json_each(:ids));

-- name: next_seq
select max(coalesce((select max(seq) from messages), 0), (select last from places)) + 1 as seq;

-- name: add_messages
insert into messages (seq, id, account, type, ordering_key, idempotency_key, key_hash, size, sha256, accepted_at)
select * from (values {rows}) where column1 is not null;

-- name: add_bodies
insert into bodies (seq, body) select * from (values {rows}) where column1 is not null;

-- name: count_duplicates
update messages set duplicates = duplicates + given.times
from (select value ->> 0 as id, value ->> 1 as times from json_each(:repeated)) given
where messages.id = given.id;

-- name: lock_lanes
-- A write transaction has the file locked. :names is JSON, an account and a consumer each.
select l.id, l.account, l.consumer, l.token,
    case when l.held or l.paused then 'other' when l.leased_until > :now then 'leased'
        when l.due is null and l.wait_until <= :now then 'idle' else 'other' end as use
from (
    select named.id from json_each(:names) given
    cross join lanes named on named.account = given.value ->> 0 and named.consumer = given.value ->> 1
    union select value from json_each(:ids)
) chosen cross join lanes l on l.id = chosen.id;

-- name: add_lanes
-- A lane to a callback starts held, and the register call opens it. Other lanes have a destination from the start.
insert into lanes (account, consumer, held, stopped_at, window)
select value ->> 0, value ->> 1, value ->> 1 = '', case when value ->> 1 = '' then :now end, 4
from json_each(:names) where true
on conflict (account, consumer) do nothing;

-- name: add_pending
-- Rows: lane, message, ordering key, whether it is the first of that key here, due.
insert into pending (lane, seq, place, key, ready, due, born)
select l.id, column2, column2, column3,
    column4 and (column3 is null or not exists (
        select true from pending p indexed by pending_by_key where p.lane = column1 and p.key = column3
    )), column5, coalesce(l.stopped_at, column5) - l.stopped_for
from (values {rows}) cross join lanes l on l.id = column1;

-- name: make_due
-- A lane that is due already costs no write.
update lanes set due = (select min(due) from pending where lane = lanes.id and ready = 1)
where id in (select value from json_each(:lanes)) and (due is null or due > :now);

-- name: take_lanes
-- Idle lanes with new deliveries.
update lanes set token = token + 1, leased_until = :now + :seconds, due = :now
where id in (select value from json_each(:lanes));

-- name: recompute_due
update lanes set due = (select min(due) from pending where lane = lanes.id and ready = 1)
where account = :account and consumer = :consumer;

-- name: lease
update lanes set token = token + 1, leased_until = :now + :seconds
where id in (
    select id from lanes
    where held = 0 and paused = 0 and due is not null and next <= :now
    order by next limit :limit
)
returning id;

-- name: leased_lanes
select l.id as lane, l.token, l.account, l.consumer, l.held = 0 and l.paused = 0 as open, c.url,
    coalesce(c.revision, 0) as revision, l.failures, l.window, l.refused, l.reason,
    l.succeeded, l.failed, l.latency, :now as read_at,
    m.in_flight, m.per_second,
    (select group_concat(id, ' ') from (
        select id from credentials
        where kind = 'signing_key' and owner = l.account and (expires_at is null or expires_at > :now)
        order by created_at
    )) as signing_keys
from json_each(:lanes) given
cross join lanes l on l.id = given.value
left join callbacks c on c.account = l.account and l.consumer = ''
left join limits m on m.account = l.account;

-- name: fetch
-- One row, all bodies in one blob: between two rows the reading thread would wait for the event loop. SQLite writes numbers
-- into JSON with 15 digits, and a time needs 17.
select json_group_array(json_array(
    length(body), followed, note, seq, id, type, ordering_key, json(printf('%!.17g', accepted_at)), attempts, strikes, age
)) as deliveries, cast(group_concat(body, '') as blob) as bodies
from (
    select p.seq, m.id, m.type, m.ordering_key, b.body, m.accepted_at, p.attempts, p.strikes,
        coalesce(l.stopped_at, :now) - l.stopped_for - p.born as age,
        exists (
            select 1 from pending o indexed by pending_by_key
            where o.lane = p.lane and o.key = p.key and o.seq <> p.seq
        ) as followed,
        (select note from notes where seq = p.seq) as note
    from (
        select *, sum(size) over (order by due, place rows unbounded preceding) - size as size_before from (
            select p.*, m.size from pending p join messages m on m.seq = p.seq
            where p.lane = :lane and p.ready = 1 and p.due <= :now
                and p.seq not in (select value from json_each(:without))
            order by p.due, p.place limit :limit
        )
    ) p
    cross join messages m on m.seq = p.seq
    cross join bodies b on b.seq = p.seq
    cross join lanes l on l.id = p.lane
    where p.size_before <= :max_bytes
);

-- name: put_off
-- Rows: lane, message, due, attempts, strikes.
update pending set due = given.column3, attempts = given.column4, strikes = given.column5
from (values {rows}) given
where pending.lane = given.column1 and pending.seq = given.column2 and pending.ready = 1;

-- name: bury
-- Rows: lane, message, attempts, when.
insert into dead (lane, seq, attempts, settled_at)
select p.lane, p.seq, given.column3, given.column4
from (values {rows}) given cross join pending p on p.lane = given.column1 and p.seq = given.column2 and p.ready = 1;

-- name: end_pending
-- With bare values for the pairs, or an index on ready, SQLite would go through all that is pending. Rows: lane, message.
delete from pending where +ready = 1 and (lane, seq) in (select column1, column2 from (values {rows}));

-- name: promote
-- The first pending delivery of each of these keys, due from ? on at the latest: the clock may have been ahead when it came.
-- Rows: lane, ordering key, the message that was settled.
update pending set ready = 1, due = min(due, ?) where ready = 0 and (lane, seq) in (
    select column1, (
        select p.seq from pending p indexed by pending_by_key
        where p.lane = column1 and p.key = column2 order by p.place limit 1
    )
    from (values {rows})
);

-- name: add_attempts
insert into attempts (
    seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt, resent, at, state, charged
)
select * from (values {rows}) where column1 is not null;

-- name: count_accepted
-- :counts is JSON, a lane and its new messages each.
insert into counts (minute, lane, accepted)
select cast(:now / 60 as integer), value ->> 0, value ->> 1 from json_each(:counts) where true
on conflict (minute, lane) do update set accepted = accepted + excluded.accepted;

-- name: count_settled
-- :counts is JSON, [lane, delivered, failed, dead] for each lane.
insert into counts (minute, lane, delivered, failed, dead)
select cast(:now / 60 as integer), value ->> 0, value ->> 1, value ->> 2, value ->> 3
from json_each(:counts) where true
on conflict (minute, lane) do update set
    delivered = delivered + excluded.delivered, failed = failed + excluded.failed, dead = dead + excluded.dead;

-- name: keep_lanes
-- Each lane's lease and due time, and its verdict unless that is about an older callback. :verdicts is JSON. A lane that is
-- given back gets another token.
update lanes set
    token = token + (given.keep <= 0),
    leased_until = case when given.keep > 0 then :now + given.keep else 0 end,
    due = (select min(due) from pending where lane = lanes.id and ready = 1),
    wait_until = case when given.judged and given.wait > 0 then :now + given.wait else wait_until end,
    stopped_at = case when given.judged and given.pause then coalesce(stopped_at, :now) else stopped_at end,
    paused = paused or (given.judged and given.pause),
    failures = iif(given.judged, given.failures, lanes.failures), window = iif(given.judged, given.window, lanes.window),
    refused = iif(given.judged, given.refused, lanes.refused), reason = iif(given.judged, given.reason, lanes.reason),
    succeeded = iif(given.judged, given.succeeded, lanes.succeeded), failed = iif(given.judged, given.failed, lanes.failed),
    latency = iif(given.judged, given.latency, lanes.latency)
from (
    select value ->> 0 as lane, value ->> 2 as keep, value ->> 3 as wait, value ->> 4 as pause, value ->> 5 as failures,
        value ->> 6 as window, value ->> 7 as refused, value ->> 8 as reason, value ->> 9 as succeeded,
        value ->> 10 as failed, value ->> 11 as latency, value ->> 1 = coalesce((
            select revision from lanes l cross join callbacks c on c.account = l.account
            where l.id = value ->> 0 and l.consumer = ''
        ), 0) as judged
    from json_each(:verdicts)
) given
where lanes.id = given.lane
returning id as lane, not held and not paused and due is not null and max(due, wait_until) <= :now as is_due;

-- name: forget_leases
update lanes set token = token + 1, leased_until = 0 where leased_until > 0;

-- name: due_in
select min(next) - :now as due_in from lanes where held = 0 and paused = 0 and due is not null;

-- name: message
select m.seq, m.id, m.account, m.type, m.ordering_key, m.idempotency_key, b.body, m.size, m.sha256, m.accepted_at, m.duplicates
from messages m left join bodies b on b.seq = m.seq where m.id = :id;

-- name: delivery_statuses
-- :seqs is JSON, the messages.
select p.seq, l.consumer, 'pending' as state, p.attempts, p.due, null as settled_at,
    coalesce(l.stopped_at, :now) - l.stopped_for - p.born as age, l.stopped_at is not null as stopped,
    case when p.ready = 0 then (
        select m.id from pending head join messages m on m.seq = head.seq
        where head.lane = p.lane and head.key = p.key order by head.place limit 1
    ) end as behind,
    (select outcome from attempts where seq = p.seq and lane = p.lane order by number desc limit 1) as last_outcome
from json_each(:seqs) given
cross join waiting w on w.seq = given.value
cross join pending p on p.lane = w.lane and p.seq = w.seq
cross join lanes l on l.id = p.lane
union all
select s.seq, l.consumer, s.state, s.attempts, s.settled_at, s.settled_at, 0.0, l.stopped_at is not null, null,
    s.last_outcome
from json_each(:seqs) given cross join settled s on s.seq = given.value cross join lanes l on l.id = s.lane
order by consumer;

-- name: attempts
select m.id as message_id, row_number() over (order by a.number) as number, a.started_at, a.url, a.outcome, a.status as http_status, a.error_code, a.fix,
    a.phases, a.excerpt, a.resent
from attempts a join messages m on m.seq = a.seq where m.id = :id order by a.number;

-- name: recent_attempts
select m.id as message_id, m.accepted_at, a.started_at, a.url, a.outcome, a.status as http_status, a.error_code, a.fix, a.phases, a.excerpt,
    a.resent, (select count(*) from attempts b where b.seq = a.seq and +b.number <= a.number) as number
from attempts a join messages m on m.seq = a.seq
order by a.number desc limit :limit;

-- name: account_attempts
-- Of these messages. :seqs is JSON.
select m.id as message_id, m.accepted_at, a.started_at, a.url, a.outcome, a.status as http_status, a.error_code, a.fix, a.phases, a.excerpt,
    a.resent, (select count(*) from attempts b where b.seq = a.seq and +b.number <= a.number) as number
from attempts a join messages m on m.seq = a.seq
where a.seq in (select value from json_each(:seqs)) order by a.number desc limit :limit;

-- name: lanes
select l.consumer, case when l.paused then 'paused' when l.held then 'held' when l.wait_until > :now then 'waiting' else 'open' end as state,
    case when not l.paused and not l.held and l.wait_until > :now then l.wait_until end as until, l.failures, l.window, l.refused, l.reason,
    l.succeeded, l.failed, l.latency, b.pending, b.dead, b.oldest_accepted_at
from lanes l join backlogs b on b.lane = l.id where l.account = :account order by l.consumer;

-- name: accounts
select l.account, c.url, c.revision, c.registered_at, m.in_flight, m.per_second,
    m.pending_messages, m.pending_bytes, m.publishes_per_second, m.changes_per_hour,
    l.consumer, case when l.paused then 'paused' when l.held then 'held' when l.wait_until > :now then 'waiting' else 'open' end as state,
    case when not l.paused and not l.held and l.wait_until > :now then l.wait_until end as until, l.failures, l.window, l.refused, l.reason,
    l.succeeded, l.failed, l.latency, b.pending, b.dead, b.oldest_accepted_at
from lanes l
join backlogs b on b.lane = l.id
left join callbacks c on c.account = l.account
left join limits m on m.account = l.account
where l.consumer = :consumer and l.account > :after and (:among is null or l.account in (select value from json_each(:among)))
    and case coalesce(:state, '')
    when '' then true
    when 'trouble' then l.failures > 0 or l.reason is not null or (l.held and l.due is not null)
    when 'paused' then l.paused
    when 'held' then l.held and not l.paused
    when 'waiting' then l.wait_until > :now and not l.held and not l.paused
    else l.wait_until <= :now and not l.held and not l.paused
end
order by l.account limit :limit;

-- name: recent
-- The account's messages before one, newest first, and a row without `seq` for each 256 numbers that have none of them: the
-- limit is one of the work. `reached`: the number down to which the row has looked.
with recursive buckets (bucket) as (
    select (min(:before, (select max(seq) from messages) + 1) - 1) >> 8
    union all
    select bucket - 1 from buckets where bucket > (select min(seq) from messages) >> 8
)
select found.value as seq, coalesce(found.value, bucket << 8) as reached
from buckets left join json_each((
    select json_group_array(seq) from (
        select seq from messages indexed by messages_by_account
        where seq >> 8 = bucket and account = :account and seq < :before order by seq desc
    )
)) found on true
where bucket is not null
limit :limit;

-- name: following
-- The same, oldest first, from after one message to the last.
with recursive buckets (bucket) as (
    select max(:after + 1, (select min(seq) from messages)) >> 8
    union all
    select bucket + 1 from buckets where bucket < :last >> 8
)
select found.value as seq, coalesce(found.value, (bucket << 8) + 255) as reached
from buckets left join json_each((
    select json_group_array(seq) from (
        select seq from messages indexed by messages_by_account
        where seq >> 8 = bucket and account = :account and seq > :after and seq <= :last order by seq
    )
)) found on true
where bucket is not null
limit :limit;

-- name: recent_pending
-- What is pending or dead of an account is found at once, however much history there is.
select distinct found.value as seq, found.value as reached
from lanes l cross join json_each((
    select json_group_array(seq) from (
        select seq from pending where lane = l.id and seq < :before order by seq desc limit :limit
    )
)) found
where l.account = :account order by seq desc limit :limit;

-- name: recent_dead
select distinct found.value as seq, found.value as reached
from lanes l cross join json_each((
    select json_group_array(seq) from (
        select seq from dead where lane = l.id and seq < :before order by seq desc limit :limit
    )
)) found
where l.account = :account order by seq desc limit :limit;

-- name: newest_pending
-- The newest :each of each lane: of these accounts, or of the first thousand lanes that have any.
with recursive every (lane) as (
    select min(lane) from pending
    union all
    select (select min(lane) from pending where lane > every.lane) from every where lane is not null limit 1000
), looked (lane) as (
    select id from lanes where account in (select value from json_each(:among))
    union all
    select lane from every where :among is null
)
select distinct found.value as seq
from looked cross join json_each((
    select json_group_array(seq) from (
        select seq from pending where lane = looked.lane and seq < :before and seq >= :floor order by seq desc limit :each
    )
)) found
order by seq desc limit :limit;

-- name: newest_dead
-- The newest :each of each lane: of these accounts, or of the first thousand lanes that have any.
with recursive every (lane) as (
    select min(lane) from dead
    union all
    select (select min(lane) from dead where lane > every.lane) from every where lane is not null limit 1000
), looked (lane) as (
    select id from lanes where account in (select value from json_each(:among))
    union all
    select lane from every where :among is null
)
select distinct found.value as seq
from looked cross join json_each((
    select json_group_array(seq) from (
        select seq from dead where lane = looked.lane and seq < :before and seq >= :floor order by seq desc limit :each
    )
)) found
order by seq desc limit :limit;

-- name: matching
select m.seq, m.id, m.account, m.type, m.ordering_key, m.idempotency_key, null as body, m.size, m.sha256,
    m.accepted_at, m.duplicates
from json_each(:seqs) given
cross join messages m on m.seq = given.value
where (:type is null or m.type = :type) and (:ordering_key is null or m.ordering_key = :ordering_key)
    and (:since is null or m.accepted_at >= :since) and (:until is null or m.accepted_at < :until)
    and case coalesce(:state, '')
        when '' then true
        when 'pending' then exists (select 1 from waiting where seq = m.seq)
        else exists (select 1 from settled where seq = m.seq and state = :state)
    end
order by m.seq desc limit :limit;

-- name: save_credential
-- :accounts, :scopes and :networks are JSON; the last two are kept as words.
insert or replace into credentials (kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at)
values (
    :kind, :id, :owner, :secret_hash, :accounts,
    coalesce((select group_concat(value, ' ') from json_each(:scopes)), ''),
    coalesce((select group_concat(value, ' ') from json_each(:networks)), ''), :created_at, :expires_at
);

-- name: lock_credential
-- A write transaction has the file locked.
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and id = :id and (expires_at is null or expires_at > :now);

-- name: pending_usage
select count(*) as messages, coalesce(sum(size), 0) as bytes, coalesce(max(seq), 0) as last from (
    select p.seq, m.size from lanes l cross join pending p on p.lane = l.id cross join messages m on m.seq = p.seq
    where l.account = :account and l.consumer = '' and p.seq > :after
    order by p.seq limit :limit
);

-- name: add_audit
insert into audit (at, actor, address, action, account, subject, detail)
values (:now, :actor, :address, :action, :account, :subject, :detail) returning number;

-- name: set_limits
insert or replace into limits
    (account, in_flight, per_second, pending_messages, pending_bytes, publishes_per_second, changes_per_hour)
values (
    :account, :in_flight, :per_second, :pending_messages, :pending_bytes, :publishes_per_second, :changes_per_hour
);

-- name: pause
-- The lane exists by now, so that an account can be paused before its first message.
update lanes set paused = 1, stopped_at = coalesce(stopped_at, :now) where account = :account and consumer = :consumer;

-- name: resume
update lanes set
    paused = 0, wait_until = 0, failures = 0, window = 4, refused = 0, reason = null,
    succeeded = 0, failed = 0, latency = 0,
    stopped_for = stopped_for + case when held = 0 then max(0, :now - coalesce(stopped_at, :now)) else 0 end,
    stopped_at = case when held = 0 then null else stopped_at end
where account = :account and consumer = :consumer;

-- name: end_backoff
-- Deliveries in backoff become due, since the endpoint was replaced or repaired.
update pending set due = :now
where lane = (select id from lanes where account = :account and consumer = :consumer)
    and ready = 1 and due > :now and strikes > 0;

-- name: lanes_of_origin
-- Lanes that wait for a receiver.
select l.id as lane from callbacks c join lanes l on l.account = c.account and l.consumer = ''
where c.origin = :origin and l.failures > 0 and l.wait_until > :now and l.held = 0 and l.paused = 0 limit :limit;

-- name: lanes_beyond
-- Lanes that are due after longer than anything may wait: they were written while the clock was ahead.
select id as lane, true as ahead from lanes
where held = 0 and paused = 0 and due is not null and next > :now + :seconds limit :limit;

-- name: lanes_ahead
-- The next lanes, and whether they have times further ahead than any that this clock wrote.
select id as lane, max(
        coalesce(due, 0), wait_until, leased_until,
        coalesce((select max(due) from pending where lane = lanes.id and ready = 1), 0)
    ) > :now + :seconds as ahead
from lanes where id > :after order by id limit :limit;

-- name: end_backoffs
update pending set due = :now
where lane in (select value from json_each(:lanes)) and ready = 1 and due > :now and strikes > 0;

-- name: wake_lanes
update lanes set wait_until = :now, due = (select min(due) from pending where lane = lanes.id and ready = 1)
where id in (select value from json_each(:lanes));

-- name: recall_lanes
update lanes set wait_until = min(wait_until, :now), leased_until = min(leased_until, :now),
    due = (select min(due) from pending where lane = lanes.id and ready = 1)
where id in (select value from json_each(:lanes));

-- name: next_place
-- The newest message's number counts as taken.
update places set last = max(last, coalesce((select max(seq) from messages), 0)) + 1 returning last;

-- name: redeliver
-- Puts the message's settled deliveries (all, or those in one state) at the tail of their key, with fresh attempts and time
-- to live.
insert into pending (lane, seq, place, key, ready, due, born)
select s.lane, m.seq, :place, m.ordering_key,
    m.ordering_key is null or not exists (
        select 1 from pending o indexed by pending_by_key where o.lane = s.lane and o.key = m.ordering_key
    ), :now, coalesce(l.stopped_at, :now) - l.stopped_for
from messages m cross join settled s on s.seq = m.seq cross join lanes l on l.id = s.lane
where m.seq = :seq and (:state is null or s.state = :state)
returning lane;

-- name: raise_dead
delete from dead where seq = :seq and lane in (select lane from pending where seq = :seq and lane in (
    select l.id from messages m join lanes l on l.account = m.account where m.seq = :seq
));

-- name: settled_messages
-- Of these messages those with bodies and without pending deliveries. :seqs is JSON.
select b.seq from json_each(:seqs) given cross join bodies b on b.seq = given.value
where not exists (select 1 from waiting where seq = b.seq)
order by b.seq;

-- name: redeliverable
-- Of these messages the settled ones that have bodies and a delivery in this state, accepted in this time span.
select m.seq from json_each(:seqs) given cross join messages m on m.seq = given.value
where m.accepted_at >= :since and m.accepted_at < :until
    and exists (select 1 from bodies where seq = m.seq)
    and exists (select 1 from settled where seq = m.seq and state = :state)
    and not exists (select 1 from waiting where seq = m.seq)
order by m.seq;

-- name: last_message
select coalesce(max(seq), 0) as seq from messages;

-- name: next_redelivery
select id, account, state, since, until, done, last from redeliveries order by id limit 1;

-- name: old_bodies
-- Some bodies, oldest first: their size, whether they are older than a time, and whether something forbids to remove them.
select b.seq as number, m.size, m.accepted_at < :before as is_old,
    exists (select 1 from waiting where seq = b.seq) as blocked
from bodies b cross join messages m on m.seq = b.seq where b.seq > :after order by b.seq limit :limit;

-- name: old_attempts
-- The last one stays, so that no number comes again.
select a.number, 0 as size, a.at < :before as is_old,
    exists (select 1 from bodies where seq = a.seq) or exists (select 1 from waiting where seq = a.seq) as blocked
from attempts a
where a.number > :after and a.number < (select max(number) from attempts) order by a.number limit :limit;

-- name: old_messages
-- The last one stays, so that no number comes again.
select m.seq as number, 0 as size, m.accepted_at < :before as is_old,
    exists (select 1 from bodies where seq = m.seq) or exists (select 1 from waiting where seq = m.seq) as blocked
from messages m
where m.seq > :after and m.seq < (select max(seq) from messages) order by m.seq limit :limit;

-- name: lock_messages
-- Changes nothing: a write transaction has the file locked.
select seq from messages where false;

-- name: remove_bodies
delete from bodies where seq in (select value from json_each(:numbers))
    and not exists (select 1 from waiting where seq = bodies.seq)
returning length(body) as size;

-- name: remove_attempts_of
delete from attempts where seq in (select value from json_each(:numbers));

-- name: remove_dead_of
delete from dead where (lane, seq) in (
    select l.id, m.seq from json_each(:numbers) given
    cross join messages m on m.seq = given.value cross join lanes l on l.account = m.account
);

-- name: mark_removed
update removed set number = max(number, :number) where source = :source;

-- name: merge_minute
insert into counts (minute, lane, accepted, delivered, failed, dead)
select minute - minute % 60, lane, accepted, delivered, failed, dead from counts where minute = :minute
on conflict (minute, lane) do update set accepted = accepted + excluded.accepted,
    delivered = delivered + excluded.delivered, failed = failed + excluded.failed, dead = dead + excluded.dead;

-- name: kept_bytes
-- Of the file, without its free pages.
select (page_count - freelist_count) * page_size as bytes
from pragma_page_count, pragma_freelist_count, pragma_page_size;

-- name: event_ends
-- The last number of each source, and the last that retention removed.
select coalesce((select max(seq) from messages), 0) as messages,
    coalesce((select max(number) from attempts), 0) as attempts,
    max(coalesce((select max(number) from callback_history), 0), callbacks) as callbacks,
    max(coalesce((select max(number) from lane_changes), 0), lanes) as lanes,
    messages as removed_messages, attempts as removed_attempts, callbacks as removed_callbacks, lanes as removed_lanes
from (
    select max(number) filter (where source = 'messages') as messages,
        max(number) filter (where source = 'attempts') as attempts,
        max(number) filter (where source = 'callbacks') as callbacks,
        max(number) filter (where source = 'lanes') as lanes
    from removed
);

-- name: messages_accepted
select seq as position, accepted_at as at, account, id, type, ordering_key, size
from messages where seq > :after order by seq limit :limit;

-- name: attempts_finished
-- The plus makes the planner count by an index of the message, not by one of the numbers.
select a.number as position, a.at, l.account, m.id, coalesce(nullif(l.consumer, ''), l.account) as lane, a.started_at,
    a.url, a.outcome, a.status as http_status, a.error_code, a.phases ->> 'total' as milliseconds, a.state,
    (select count(*) from attempts b where b.seq = a.seq and +b.number <= a.number) as number
from attempts a join messages m on m.seq = a.seq join lanes l on l.id = a.lane
where a.number > :after order by a.number limit :limit;

-- name: callbacks_changed
select h.number as position, h.at, h.account, h.url, h.actor, h.revision,
    case
        when h.url is null then 'deregistered'
        when (
            select url from callback_history b where b.account = h.account and b.revision = h.revision - 1
        ) is not null then 'replaced'
        else 'registered'
    end as action
from callback_history h where h.number > :after order by h.number limit :limit;

-- name: lanes_changed
select c.number as position, c.at, l.account, coalesce(nullif(l.consumer, ''), l.account) as lane, c.state, c.until,
    c.reason
from lane_changes c join lanes l on l.id = c.lane
where c.number > :after order by c.number limit :limit;

-- name: remove_counts
delete from counts where (minute, lane) in (
    select minute, lane from counts where minute < :before limit :limit
) returning minute;

-- name: backlog
-- Of the whole store. An index finds the oldest message of each lane, and there are fewer lanes than messages.
select (select count(*) from pending) as pending, (select count(*) from dead) as dead,
    :now - (
        select accepted_at from messages where seq = (
            select min((select p.seq from pending p where p.lane = l.id order by p.seq limit 1)) from lanes l
        )
    ) as oldest_age;

-- name: stats
-- :among is JSON; null means all accounts.
select minute, sum(accepted) as accepted, sum(delivered) as delivered, sum(failed) as failed, sum(dead) as dead
from counts
where minute > cast(:now / 60 as integer) - :minutes and (:among is null or lane in (
    select l.id from json_each(:among) given cross join lanes l on l.account = given.value
))
group by minute order by minute;

-- name: this_minute
select cast(:now / 60 as integer) as minute;

-- name: find_campaigns
-- :names is JSON, accounts and campaigns.
select c.id, c.account, c.campaign from json_each(:names) given
cross join campaigns c on c.account = given.value ->> 0 and c.campaign = given.value ->> 1;

-- name: add_campaigns
insert into campaigns (account, campaign) select value ->> 0, value ->> 1 from json_each(:names) where true
on conflict (account, campaign) do nothing;

-- name: record_reports
-- The state guard: a status that goes back in the life cycle changes nothing, nor does a result that is known already. Among
-- results, ThingSpace's report is right. First the time. Rows: message, campaign, device, status, rank, by_report, detail.
insert into ledger (at, seq, campaign, device, status, rank, by_report, detail, repairs)
select ?, column1, column2, column3, column4, column5, column6, column7, column6 from (values {rows})
where column1 is not null
on conflict (campaign, device) do update set
    seq = excluded.seq, status = excluded.status, rank = excluded.rank, at = excluded.at, by_report = excluded.by_report,
    repairs = ledger.repairs + excluded.repairs, detail = excluded.detail
where excluded.rank > ledger.rank
    or (excluded.rank = ledger.rank and excluded.status <> ledger.status)
    or (excluded.rank = ledger.rank and excluded.rank < 5 and excluded.seq > ledger.seq and not ledger.by_report)
    or (excluded.by_report and excluded.rank >= 5 and excluded.status <> ledger.status);

-- name: stale_reports
-- Those that the guard held off. Rows: message, campaign, device.
select given.column1 as seq, given.column3 as device from (values {rows}) given
join ledger l on l.campaign = given.column2 and l.device = given.column3
where l.seq <> given.column1;

-- name: add_notes
insert into notes (seq, note) select value ->> 0, value ->> 1 from json_each(:rows);

-- name: expect_devices
insert into ledger (campaign, device) select :campaign, value from json_each(:devices) where true
on conflict (campaign, device) do nothing;

-- name: find_device
select c.account, c.campaign, l.device, l.status, l.at, l.detail, null as told
from campaigns c cross join ledger l on l.campaign = c.id and l.device = :device
where l.status is not null and (:among is null or c.account in (select value from json_each(:among))) order by l.at desc limit :limit;

-- name: overdue_devices
-- Of campaigns that ended within the last :seconds.
select count(*) as devices from campaigns c indexed by campaigns_by_end cross join ledger l on l.campaign = c.id
where c.ends_at <= :now and c.ends_at > :now - :seconds and l.device <> '' and l.rank < :final;
