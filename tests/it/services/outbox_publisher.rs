//! `OutboxPublisher`.

use crate::support::fixture::*;
use janitor_runner::ports::Event;

#[tokio::test]
async fn a_result_is_told() {
    let place = place();
    let id = place.held().await;
    let mut listener = place.events.listen();
    let finisher = place.finisher(place.store.clone(), working_artifacts(), working_logs());
    let first = finish(&finisher, &id, SUCCESS).await.unwrap();
    place.outbox_publisher.tell().await.unwrap();
    assert_eq!(
        listener.try_recv().unwrap(),
        Event::Result(Box::new(first.run.clone()))
    );
    let again = finish(&finisher, &id, "{}").await.unwrap();
    assert!(!again.first_time);
    assert_eq!(again.run, first.run);
    assert_eq!(place.outbox_publisher.tell().await.unwrap(), 0);
    assert!(listener.try_recv().is_err());
}
