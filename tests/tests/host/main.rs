//! The whole host on embedded topics: the real binary and the host in this process, with faults around its parts.
//! Invariant: no test here needs a broker.

mod alerts;
mod bad_records;
mod bad_setup;
mod bindings;
mod bombs;
mod commits;
mod data_directory;
mod deaths;
mod demonstration;
mod disk_full;
mod embedded;
mod exit_codes;
mod guests_that_fail;
mod hot_reload;
mod ingress;
mod ingress_deaths;
mod ingress_steps;
mod operator_commands;
mod plugin_commands;
mod plugin_restarts;
mod plugin_shipping;
mod private_files;
mod probation;
mod races;
mod restarts;
mod retries;
mod rules;
mod scenarios;
mod sent_again;
mod services;
mod shops;
mod tidy;
mod typed_ids;
mod unhandled_kinds;
mod ways_on;
