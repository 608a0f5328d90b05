//! `OutboxPublisher`.

use crate::support::fixture::*;
use janitor_runner::ports::Event;

#[tokio::test]
async fn result_is_published_once() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let mut listener = fixture.events.listen();
    let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), working_logs());
    let first = finish(&finisher, &id, SUCCESS_REPORT).await.unwrap();
    fixture.outbox_publisher.publish_batch().await.unwrap();
    assert_eq!(
        listener.try_recv().unwrap(),
        Event::Result(Box::new(first.run.clone()))
    );
    let again = finish(&finisher, &id, "{}").await.unwrap();
    assert!(!again.first_time);
    assert_eq!(again.run, first.run);
    assert_eq!(fixture.outbox_publisher.publish_batch().await.unwrap(), 0);
    assert!(listener.try_recv().is_err());
}
