-- Whether an attempt was sent twice, since the kept connection that it was first sent on ended without an answer.
alter table attempts add column resent boolean not null default false;
