-- An endpoint's recent attempts: successes and failures, of which older ones count less, and its fastest answer in seconds.
alter table lanes
    add column succeeded double precision not null default 0,
    add column failed double precision not null default 0,
    add column latency double precision not null default 0;

-- A lane without history starts with four deliveries in flight.
alter table lanes alter column "window" set default 4;
update lanes set "window" = 4 where failures = 0 and "window" < 4;

-- Scheme, host and port of the callback's URL: lanes that wait for the same receiver are woken together.
alter table callbacks add column origin text generated always as (substring(url from '^[a-z]+://[^/?]*')) stored;
create index callbacks_by_origin on callbacks (origin);
