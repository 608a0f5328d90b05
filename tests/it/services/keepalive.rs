//! `Keepalive`.

use crate::support::{fixture::*, start};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel, ports::ActiveRunStore, services::ServiceError,
};
use std::sync::Arc;

#[tokio::test]
async fn a_keepalive_renews_and_says_when_to_stop() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    place.clock.advance(TimeDelta::seconds(60));
    let renewed = place.keepalive.renew(&run.id, None).await.unwrap();
    assert_eq!(renewed.lease_until, Some(start() + TimeDelta::seconds(180)));
    assert_eq!(renewed.cancel, None);
    assert!(matches!(
        place.keepalive.renew(&run.id, Some("other")).await,
        Err(ServiceError::NotYours(_))
    ));
    place.store.cancel(&run.id, "enough").await.unwrap();
    assert_eq!(
        place
            .keepalive
            .renew(&run.id, None)
            .await
            .unwrap()
            .cancel
            .as_deref(),
        Some("enough")
    );
    place.clock.advance(TimeDelta::seconds(121));
    place
        .watcher(Arc::new(NoBackchannel), place.working_finisher())
        .round()
        .await
        .unwrap();
    assert!(matches!(
        place.keepalive.renew(&run.id, None).await,
        Err(ServiceError::Gone { stop: false, .. })
    ));
    place.leased("aa", "r2").await;
    assert!(matches!(
        place.keepalive.renew(&run.id, None).await,
        Err(ServiceError::Gone { stop: true, .. })
    ));
    let never = janitor_runner::domain::name::RunId::new("never");
    assert!(matches!(
        place.keepalive.renew(&never, None).await,
        Err(ServiceError::NotFound { .. })
    ));
}
