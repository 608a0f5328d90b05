//! `Credentials`, with and without the cache in front.

use super::contract;
use janitor_runner::{
    adapters::support::credentials_cache::CachedCredentials,
    ports::{Credentials, CredentialsError},
};
use std::sync::Arc;

contract!(
    only_the_right_password_is_accepted,
    duplicate_worker_name_is_rejected,
    new_password_replaces_the_old_one,
    removing_a_worker_closes_its_login,
    cached_credentials_meet_the_contract
);

async fn only_the_right_password_is_accepted<S: Credentials>(store: &S) {
    store
        .add("w1", "secret1", Some("http://w1/".into()))
        .await
        .unwrap();
    assert!(store.verify("w1", "secret1").await.unwrap());
    for (name, password) in [("w1", "secret2"), ("w1", ""), ("w2", "secret1"), ("", "")] {
        assert!(
            !store.verify(name, password).await.unwrap(),
            "{name}:{password}"
        );
    }
    let all = store.list().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].name.as_str(), "w1");
    assert_eq!(all[0].link.as_deref(), Some("http://w1/"));
    assert_eq!(all[0].last_seen, None);
}

async fn duplicate_worker_name_is_rejected<S: Credentials>(store: &S) {
    store.add("w1", "secret1", None).await.unwrap();
    assert!(
        matches!(store.add("w1", "other", None).await, Err(CredentialsError::Exists(name)) if name == "w1")
    );
    assert!(store.verify("w1", "secret1").await.unwrap());
    assert!(!store.verify("w1", "other").await.unwrap());
    assert!(store.account("w1").await.unwrap().is_some());
    assert!(store.account("w2").await.unwrap().is_none());
}

async fn new_password_replaces_the_old_one<S: Credentials>(store: &S) {
    store.add("w1", "old", Some("link".into())).await.unwrap();
    assert!(store.verify("w1", "old").await.unwrap());
    assert!(store.set_password("w1", "new").await.unwrap());
    assert!(store.verify("w1", "new").await.unwrap());
    assert!(!store.verify("w1", "old").await.unwrap());
    assert_eq!(store.list().await.unwrap()[0].link.as_deref(), Some("link"));
    assert!(!store.set_password("w2", "new").await.unwrap());
}

async fn removing_a_worker_closes_its_login<S: Credentials>(store: &S) {
    store.add("w1", "old", None).await.unwrap();
    assert!(store.verify("w1", "old").await.unwrap());
    assert!(store.remove("w1").await.unwrap());
    assert!(!store.remove("w1").await.unwrap());
    assert!(!store.verify("w1", "old").await.unwrap());
    assert!(store.account("w1").await.unwrap().is_none());
}

async fn cached_credentials_meet_the_contract<S: Credentials + Clone + 'static>(store: &S) {
    let cached = || CachedCredentials::new(Arc::new(store.clone()));
    only_the_right_password_is_accepted(&cached()).await;
    remove_and_check_again(&cached()).await;
    duplicate_worker_name_is_rejected(&cached()).await;
    remove_and_check_again(&cached()).await;
    new_password_replaces_the_old_one(&cached()).await;
}

async fn remove_and_check_again(store: &CachedCredentials) {
    assert!(store.remove("w1").await.unwrap());
    removing_a_worker_closes_its_login(store).await;
}
