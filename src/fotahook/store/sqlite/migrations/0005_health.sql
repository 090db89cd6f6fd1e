-- An endpoint's recent attempts: successes and failures, of which older ones count less, and its fastest answer in seconds.
alter table lanes add column succeeded real not null default 0;
alter table lanes add column failed real not null default 0;
alter table lanes add column latency real not null default 0;

-- A lane without history starts with four deliveries in flight.
update lanes set window = 4 where failures = 0 and window < 4;

-- Scheme, host and port of the callback's URL: lanes that wait for the same receiver are woken together.
alter table callbacks add column origin text generated always as (
    substr(url, 1, instr(replace(substr(url, 9), '?', '/') || '/', '/') + 7)
) virtual;
create index callbacks_by_origin on callbacks (origin);
