-- Quotas that an operator set for an account; null means the service's own.
alter table limits add column pending_messages bigint;
alter table limits add column pending_bytes bigint;
alter table limits add column publishes_per_second bigint;
alter table limits add column changes_per_hour bigint;
