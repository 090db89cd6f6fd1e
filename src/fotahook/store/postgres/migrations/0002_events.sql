-- What happened is told from the rows that are written anyway: messages, attempts, the history of callbacks. Each has a
-- number that grows and never comes again. Numbers are drawn before the rows can be seen; postgres_events.py knows when
-- all up to a number can.

-- When an attempt was settled, and what its delivery was then; null in rows that are older than this migration.
alter table attempts add column at double precision, add column state text;
create unique index attempts_by_number on attempts (number);

alter table callback_history add column number bigint generated always as identity;
create unique index callback_history_by_number on callback_history (number);

-- A lane's state as events tell it: waiting from the first trouble of its endpoint to the next success, whatever is tried
-- in between.
alter table lanes add column told text generated always as (
    case when paused then 'paused' when held then 'held' when failures > 0 then 'waiting' else 'open' end
) stored;

-- What retention has removed is remembered by its last row, whose state is then `removed`.
create table lane_changes (
    number bigint generated always as identity primary key,
    lane bigint not null,
    at double precision not null,
    state text not null,
    until double precision,
    reason text
);

create function tell_lane_change() returns trigger language plpgsql as $$
begin
    insert into lane_changes (lane, at, state, until, reason) values (
        new.id, store_now(), new.told, case when new.told = 'waiting' then new.wait_until end, new.reason
    );
    return null;
end
$$;

create trigger lane_changed after update of paused, held, failures on lanes
    for each row when (old.told <> new.told) execute function tell_lane_change();

-- How much happened in each lane in each minute since 1970: messages accepted, deliveries delivered and dead, attempts that
-- failed. Rows are written under the lock of their lane only.
create table counts (
    minute bigint not null,
    lane bigint not null,
    accepted bigint not null default 0,
    delivered bigint not null default 0,
    failed bigint not null default 0,
    dead bigint not null default 0,
    primary key (minute, lane)
);
