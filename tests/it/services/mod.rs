//! The use cases with failing ports: what happens when a store is unavailable at the wrong moment, and when time passes.

mod abandon;
mod assign;
mod finish;
mod finish_detached;
mod follow_up;
mod keepalive;
mod live_log;
mod logs;
mod long_poll;
mod outbox_publisher;
mod prober;
mod resumes;
mod retry;
mod watch;
