//! `Keepalive`.

use crate::support::{fixture::*, start};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel, domain::caller::Caller, ports::ActiveRunStore,
    services::ServiceError,
};
use std::sync::Arc;

#[tokio::test]
async fn keepalive_renews_the_lease_and_reports_cancellation() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    fixture.clock.advance(TimeDelta::seconds(60));
    let renewed = fixture
        .keepalive
        .renew(&run.id, &Caller::Operator)
        .await
        .unwrap();
    assert_eq!(renewed.lease_until, Some(start() + TimeDelta::seconds(180)));
    assert_eq!(renewed.cancel, None);
    assert!(matches!(
        fixture
            .keepalive
            .renew(&run.id, &Caller::Worker("other".into()))
            .await,
        Err(ServiceError::NotYours(_))
    ));
    fixture.store.cancel(&run.id, "enough").await.unwrap();
    assert_eq!(
        fixture
            .keepalive
            .renew(&run.id, &Caller::Operator)
            .await
            .unwrap()
            .cancel
            .as_deref(),
        Some("enough")
    );
    fixture.clock.advance(TimeDelta::seconds(121));
    fixture
        .watcher(Arc::new(NoBackchannel), fixture.working_finisher())
        .round()
        .await
        .unwrap();
    assert!(matches!(
        fixture.keepalive.renew(&run.id, &Caller::Operator).await,
        Err(ServiceError::Gone { stop: false, .. })
    ));
    fixture.leased("aa", "r2").await;
    assert!(matches!(
        fixture.keepalive.renew(&run.id, &Caller::Operator).await,
        Err(ServiceError::Gone { stop: true, .. })
    ));
    let never = janitor_runner::domain::name::RunId::new("never");
    assert!(matches!(
        fixture.keepalive.renew(&never, &Caller::Operator).await,
        Err(ServiceError::NotFound { .. })
    ));
}
