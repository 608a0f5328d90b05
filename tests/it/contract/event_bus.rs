//! `EventBus` in this process.

use crate::support::start;
use janitor_runner::{
    adapters::in_process::InProcessEvents,
    ports::{Event, EventBus, event_bus::Status},
};

#[tokio::test]
async fn published_events_reach_listeners() {
    let events = InProcessEvents::default();
    let event = || {
        Event::Queue(Box::new(Status {
            processing: vec![],
            avoid_hosts: vec![],
            rate_limit_hosts: vec![],
            slow_hosts: vec![],
            now: start(),
        }))
    };
    events.publish(event()).await.unwrap();
    let mut listener = events.listen();
    events.publish(event()).await.unwrap();
    assert_eq!(listener.recv().await.unwrap(), event());
    assert!(listener.try_recv().is_err());
    events.health_check().await.unwrap();
}
