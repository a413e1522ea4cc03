//! What the scenarios share: built plugins, a host in this process with faults around its journal and transport, and
//! the real binary. Invariant: nothing here replaces a part of the host; it only breaks real ones.

pub mod author;
pub mod binary;
pub mod bombs;
pub mod built;
pub mod compiled;
pub mod events;
pub mod faulty;
pub mod http_client;
pub mod http_service;
pub mod kafka_shop;
pub mod operator;
pub mod payment_service;
pub mod plugin_files;
pub mod shop;
pub mod small_disk;
pub mod topic_admin;
pub mod wait;
