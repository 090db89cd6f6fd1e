-- Quotas that an operator set for an account; null means the service's own.
alter table limits add column pending_messages integer;
alter table limits add column pending_bytes integer;
alter table limits add column publishes_per_second integer;
alter table limits add column changes_per_hour integer;
