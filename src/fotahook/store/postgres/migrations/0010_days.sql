-- Bodies and attempts are in partitions: one for each day (since 1970, UTC) on which messages were accepted. So whatever is
-- known of a message is found in one of them, and retention drops a day at once. Days without a partition of their own
-- share a default one.
set local enable_seqscan = on;
set local enable_hashjoin = on;
set local enable_mergejoin = on;

create function day_of(at double precision) returns integer
    language sql immutable parallel safe
    as $$ select floor(at / 86400)::integer $$;

-- From an age of a day on, what is kept begins with a whole day.
create function oldest_kept(before double precision) returns double precision
    language sql stable parallel safe
    as $$ select case when before > store_now() - 86400 then before else floor(before / 86400) * 86400 end $$;

drop view settled;
drop view waiting;
alter table bodies rename to former_bodies;
alter index bodies_pkey rename to former_bodies_pkey;
alter table attempts rename to former_attempts;
alter index attempts_pkey rename to former_attempts_pkey;
alter index attempts_by_number rename to former_attempts_by_number;
alter sequence attempts_number_seq rename to former_attempts_number_seq;

create table bodies (
    day integer not null default day_of(store_now()),
    seq bigint not null,
    body bytea not null,
    primary key (seq, day)
) partition by list (day);

create sequence attempts_number_seq;
select setval('attempts_number_seq', last_value, is_called) from former_attempts_number_seq;

create table attempts (
    day integer not null default day_of(store_now()),
    seq bigint not null,
    number bigint not null default nextval('attempts_number_seq'),
    lane bigint not null,
    started_at double precision not null,
    url text,
    outcome text not null,
    status integer,
    error_code text,
    fix text,
    phases text not null,
    excerpt text not null,
    at double precision not null,
    state text not null,
    resent boolean not null default false,
    charged integer not null,
    primary key (seq, number, day)
) partition by list (day);

create index attempts_by_number on attempts (number);

create table bodies_default partition of bodies default
    with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
create table attempts_default partition of attempts default
    with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);

-- Makes the partitions of a day. False if locks are held for long; the days that have rows in the default partition stay
-- there.
create function make_day(of_day integer) returns boolean language plpgsql set lock_timeout = '50ms' as $$
declare
    parent text;
begin
    perform pg_advisory_xact_lock(hashtext('fotahook days'), hashtext(current_schema()));
    foreach parent in array array['bodies', 'attempts'] loop
        if to_regclass(format('%s_d%s', parent, of_day)) is null then
            begin
                execute format(
                    'create table %s_d%s (like %1$s including all)'
                    ' with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02)',
                    parent, of_day
                );
                execute format('alter table %s attach partition %1$s_d%s for values in (%2$s)', parent, of_day);
            exception when check_violation then
                null;
            end;
        end if;
    end loop;
    return true;
exception when lock_not_available then
    return false;
end
$$;

-- Drops the rows of a day with its partition, except those that are still needed: they get a new one. These are the bodies
-- of pending messages; attempts that are younger than a time, or at messages that have bodies. Nothing is done if that is
-- more than half of all, or (`busy`) if a lock is held for long: then all others would wait behind this. The lock on the
-- whole table comes last. Redelivery, by which rows come to be needed, waits for all of it, see hold_days.
create function drop_day(parent text, of_day integer, before double precision)
    returns table (busy boolean, dropped bigint, bytes bigint)
    language plpgsql set lock_timeout = '50ms'
    as $$
declare
    child text := format('%s_d%s', parent, of_day);
    spare text := format('%s_spare', child);
    grows text := case parent when 'bodies' then 'seq' else 'number' end;
    is_needed text := case parent when 'bodies' then 'seq = any($1)' else 'number > $2 or seq = any($1)' end;
    first bigint;
    final bigint;
    last bigint;
    last_old bigint;
    last_now bigint;
    messages bigint[];
    needed bigint;
begin
    busy := false;
    dropped := 0;
    bytes := 0;
    perform pg_advisory_xact_lock(hashtext('fotahook days'), hashtext(current_schema()));
    if to_regclass(child) is null then
        return next;
        return;
    end if;
    execute format('select min(seq), max(seq), max(%I), count(*) from %I', grows, child) into first, final, last, dropped;
    if parent = 'bodies' then
        messages := array(select seq from pending where seq between first and final);
        needed := cardinality(messages);
    else
        messages := array(select seq from bodies where day = of_day and seq between first and final);
        execute format('select number from %I where at < $1 order by number desc limit 1', child) into last_old using before;
        execute format('select count(*) from %I where number > $1', child) into needed using coalesce(last_old, 0);
        needed := needed + cardinality(messages);
    end if;
    if needed * 2 > dropped then
        dropped := 0;
        return next;
        return;
    end if;
    bytes := pg_total_relation_size(to_regclass(child));
    if needed > 0 then
        execute format(
            'create table %I (like %I including all)'
            ' with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02)', spare, parent
        );
        execute format('insert into %I select * from %I where %s', spare, child, is_needed) using messages, last_old;
        get diagnostics needed = row_count;
        dropped := dropped - needed;
        bytes := bytes - pg_total_relation_size(to_regclass(spare));
    end if;
    execute format('lock table only %I in access exclusive mode', parent);
    execute format('select max(%I) from %I', grows, child) into last_now;
    if last_now > last then
        raise lock_not_available;
    end if;
    execute format('drop table %I', child);
    if needed > 0 then
        execute format('alter table %I rename to %I', spare, child);
        execute format('alter table %I attach partition %I for values in (%s)', parent, child, of_day);
    end if;
    update removed set number = greatest(number, last_old) where source = parent;
    return next;
exception when lock_not_available then
    busy := true;
    dropped := 0;
    bytes := 0;
    return next;
end
$$;

-- The rows that there are, on the days of their messages.
select make_day(day) from (
    select distinct day_of(m.accepted_at) as day from messages m where exists (
        select from former_bodies where seq = m.seq
    ) or exists (
        select from former_attempts where seq = m.seq
    ) union select generate_series(day_of(store_now()), day_of(store_now()) + 7)
) days order by day;

insert into bodies (day, seq, body)
select day_of(m.accepted_at), b.seq, b.body from former_bodies b join messages m using (seq) order by b.seq;

insert into attempts (
    day, seq, number, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt, at, state, resent, charged
)
select day_of(m.accepted_at), a.seq, a.number, a.lane, a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix,
    a.phases, a.excerpt, a.at, a.state, a.resent, a.charged
from former_attempts a join messages m using (seq) order by a.seq, a.number;

drop table former_bodies;
drop table former_attempts;

-- How each settled delivery ended. A lateral with a limit reads one row by its key, whatever the planner believes of the
-- tables; and `number + 0` makes it find a message's attempts by the message.
create view settled as
select m.seq, l.id as lane, case when d.attempts is null then 'delivered' else 'dead' end as state,
    coalesce(d.attempts, a.charged) as attempts, coalesce(d.settled_at, a.at) as settled_at, a.outcome as last_outcome
from messages m
join lanes l on l.account = m.account
left join lateral (select attempts, settled_at from dead where lane = l.id and seq = m.seq limit 1) d on true
left join lateral (
    select charged, at, outcome from attempts
    where day = day_of(m.accepted_at) and seq = m.seq and lane = l.id
        and state = case when d.attempts is null then 'delivered' else 'dead' end
    order by number + 0 desc limit 1
) a on true
where (d.attempts is not null or a.charged is not null)
    and (select true from pending where lane = l.id and seq = m.seq limit 1) is null;

-- The lanes in which a message is pending.
create view waiting as
select m.seq, day_of(m.accepted_at) as day, p.lane
from messages m
join lanes l on l.account = m.account
cross join lateral (select lane from pending where lane = l.id and seq = m.seq limit 1) p;
