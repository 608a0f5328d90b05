//! `Credentials`, with and without the cache in front.

use super::contract;
use janitor_runner::{
    adapters::support::credentials_cache::CachedCredentials,
    ports::{Credentials, CredentialsError},
};
use std::sync::Arc;

contract!(
    passwords_are_verified,
    names_are_taken_once,
    passwords_change,
    workers_go,
    behind_the_cache
);

async fn passwords_are_verified<S: Credentials>(store: &S) {
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

async fn names_are_taken_once<S: Credentials>(store: &S) {
    store.add("w1", "secret1", None).await.unwrap();
    assert!(
        matches!(store.add("w1", "other", None).await, Err(CredentialsError::Exists(name)) if name == "w1")
    );
    assert!(store.verify("w1", "secret1").await.unwrap());
    assert!(!store.verify("w1", "other").await.unwrap());
    assert!(store.account("w1").await.unwrap().is_some());
    assert!(store.account("w2").await.unwrap().is_none());
}

async fn passwords_change<S: Credentials>(store: &S) {
    store.add("w1", "old", Some("link".into())).await.unwrap();
    assert!(store.verify("w1", "old").await.unwrap());
    assert!(store.set_password("w1", "new").await.unwrap());
    assert!(store.verify("w1", "new").await.unwrap());
    assert!(!store.verify("w1", "old").await.unwrap());
    assert_eq!(store.list().await.unwrap()[0].link.as_deref(), Some("link"));
    assert!(!store.set_password("w2", "new").await.unwrap());
}

async fn workers_go<S: Credentials>(store: &S) {
    store.add("w1", "old", None).await.unwrap();
    assert!(store.verify("w1", "old").await.unwrap());
    assert!(store.remove("w1").await.unwrap());
    assert!(!store.remove("w1").await.unwrap());
    assert!(!store.verify("w1", "old").await.unwrap());
    assert!(store.account("w1").await.unwrap().is_none());
}

async fn behind_the_cache<S: Credentials + Clone + 'static>(store: &S) {
    let cached = || CachedCredentials::new(Arc::new(store.clone()));
    passwords_are_verified(&cached()).await;
    workers_go_again(&cached()).await;
    names_are_taken_once(&cached()).await;
    workers_go_again(&cached()).await;
    passwords_change(&cached()).await;
}

async fn workers_go_again(store: &CachedCredentials) {
    assert!(store.remove("w1").await.unwrap());
    workers_go(store).await;
}
