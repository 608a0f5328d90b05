//! `Credentials`.

use super::contract;
use janitor_runner::ports::{Credentials, CredentialsError};

contract!(
    only_the_right_password_is_accepted,
    duplicate_worker_name_is_rejected,
    new_password_replaces_the_old_one,
    removing_a_worker_closes_its_login,
    stamp_is_that_of_the_password
);

async fn is_right<S: Credentials>(store: &S, name: &str, password: &str) -> bool {
    store.verify(name, password).await.unwrap().is_some()
}

async fn only_the_right_password_is_accepted<S: Credentials>(store: &S) {
    store
        .add("w1", "secret1", Some("http://w1/".into()))
        .await
        .unwrap();
    assert!(is_right(store, "w1", "secret1").await);
    for (name, password) in [("w1", "secret2"), ("w1", ""), ("w2", "secret1"), ("", "")] {
        assert!(!is_right(store, name, password).await, "{name}:{password}");
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
    assert!(is_right(store, "w1", "secret1").await);
    assert!(!is_right(store, "w1", "other").await);
    assert!(store.account("w1").await.unwrap().is_some());
    assert!(store.account("w2").await.unwrap().is_none());
}

async fn new_password_replaces_the_old_one<S: Credentials>(store: &S) {
    store.add("w1", "old", Some("link".into())).await.unwrap();
    assert!(is_right(store, "w1", "old").await);
    assert!(store.set_password("w1", "new").await.unwrap());
    assert!(is_right(store, "w1", "new").await);
    assert!(!is_right(store, "w1", "old").await);
    assert_eq!(store.list().await.unwrap()[0].link.as_deref(), Some("link"));
    assert!(!store.set_password("w2", "new").await.unwrap());
}

async fn removing_a_worker_closes_its_login<S: Credentials>(store: &S) {
    store.add("w1", "old", None).await.unwrap();
    assert!(is_right(store, "w1", "old").await);
    assert!(store.remove("w1").await.unwrap());
    assert!(!store.remove("w1").await.unwrap());
    assert!(!is_right(store, "w1", "old").await);
    assert!(store.account("w1").await.unwrap().is_none());
}

async fn stamp_is_that_of_the_password<S: Credentials>(store: &S) {
    assert_eq!(store.stamp("w1").await.unwrap(), None);
    store.add("w1", "old", None).await.unwrap();
    let stamp = store.stamp("w1").await.unwrap();
    assert!(stamp.is_some());
    assert_eq!(store.verify("w1", "old").await.unwrap(), stamp);
    assert_eq!(store.stamp("w1").await.unwrap(), stamp);
    store.set_password("w1", "new").await.unwrap();
    assert_ne!(store.stamp("w1").await.unwrap(), stamp);
    store.remove("w1").await.unwrap();
    assert_eq!(store.stamp("w1").await.unwrap(), None);
}
