//! `LiveLogs`.

use super::contract;
use bytes::Bytes;
use janitor_runner::{
    domain::name::RunId,
    ports::{
        LiveLogs,
        live_logs::{Appended, MAX_LOGS},
    },
};

contract!(
    append_extends_the_log,
    repeated_append_adds_no_duplicates,
    append_past_the_end_returns_gap,
    append_over_the_limit_returns_full,
    run_has_a_limited_number_of_logs,
    logs_are_separate_and_removed_by_run,
    large_log_is_read_in_chunks
);

const MAX_RUN_BYTES: u64 = 1 << 20;

fn run() -> RunId {
    RunId::new("r1")
}

async fn whole<S: LiveLogs>(store: &S, name: &str, from: u64) -> Vec<u8> {
    let mut whole = vec![];
    while let Some(bytes) = store
        .read(&run(), name, from + whole.len() as u64, 100_000)
        .await
        .unwrap()
        .filter(|bytes| !bytes.is_empty())
    {
        whole.extend_from_slice(&bytes);
    }
    whole
}

async fn append_extends_the_log<S: LiveLogs>(store: &S) {
    assert_eq!(store.read(&run(), "w.log", 0, 9).await.unwrap(), None);
    assert_eq!(
        store
            .append(&run(), "w.log", 0, Bytes::from("one "), MAX_RUN_BYTES)
            .await
            .unwrap(),
        Appended::Size(4)
    );
    assert_eq!(
        store
            .append(&run(), "w.log", 4, Bytes::from("two"), MAX_RUN_BYTES)
            .await
            .unwrap(),
        Appended::Size(7)
    );
    assert_eq!(whole(store, "w.log", 0).await, b"one two");
    assert_eq!(whole(store, "w.log", 5).await, b"wo");
    assert_eq!(
        store.read(&run(), "w.log", 1, 2).await.unwrap().unwrap(),
        "ne"
    );
    assert_eq!(
        store.read(&run(), "w.log", 7, 9).await.unwrap().unwrap(),
        ""
    );
    assert_eq!(
        store.read(&run(), "w.log", 99, 9).await.unwrap().unwrap(),
        ""
    );
}

async fn repeated_append_adds_no_duplicates<S: LiveLogs>(store: &S) {
    for _ in 0..2 {
        assert_eq!(
            store
                .append(&run(), "w.log", 0, Bytes::from("abcd"), MAX_RUN_BYTES)
                .await
                .unwrap(),
            Appended::Size(4)
        );
    }
    assert_eq!(
        store
            .append(&run(), "w.log", 2, Bytes::from("cdef"), MAX_RUN_BYTES)
            .await
            .unwrap(),
        Appended::Size(6)
    );
    assert_eq!(
        store
            .append(&run(), "w.log", 1, Bytes::from("b"), MAX_RUN_BYTES)
            .await
            .unwrap(),
        Appended::Size(6)
    );
    assert_eq!(whole(store, "w.log", 0).await, b"abcdef");
}

async fn append_past_the_end_returns_gap<S: LiveLogs>(store: &S) {
    assert_eq!(
        store
            .append(&run(), "w.log", 1, Bytes::from("x"), MAX_RUN_BYTES)
            .await
            .unwrap(),
        Appended::Gap(0)
    );
    assert_eq!(store.list(&run()).await.unwrap(), vec![]);
    store
        .append(&run(), "w.log", 0, Bytes::from("ab"), MAX_RUN_BYTES)
        .await
        .unwrap();
    assert_eq!(
        store
            .append(&run(), "w.log", 3, Bytes::from("x"), MAX_RUN_BYTES)
            .await
            .unwrap(),
        Appended::Gap(2)
    );
    assert_eq!(whole(store, "w.log", 0).await, b"ab");
}

async fn run_has_a_limited_number_of_logs<S: LiveLogs>(store: &S) {
    let append = async |name: &str, offset, text: &'static str| {
        let bytes = Bytes::from(text);
        let run = run();
        let appended = store.append(&run, name, offset, bytes, MAX_RUN_BYTES);
        appended.await.unwrap()
    };
    for number in 0..MAX_LOGS {
        let name = format!("{number}.log");
        assert_eq!(append(&name, 0, "a").await, Appended::Size(1), "{name}");
    }
    assert_eq!(append("more.log", 0, "a").await, Appended::Full);
    assert_eq!(append("7.log", 1, "b").await, Appended::Size(2));
    assert_eq!(store.list(&run()).await.unwrap().len(), MAX_LOGS);
}

async fn append_over_the_limit_returns_full<S: LiveLogs>(store: &S) {
    assert_eq!(
        store
            .append(&run(), "a.log", 0, Bytes::from("123"), 5)
            .await
            .unwrap(),
        Appended::Size(3)
    );
    assert_eq!(
        store
            .append(&run(), "b.log", 0, Bytes::from("123"), 5)
            .await
            .unwrap(),
        Appended::Full
    );
    assert_eq!(
        store
            .append(&run(), "a.log", 3, Bytes::from("456"), 5)
            .await
            .unwrap(),
        Appended::Full
    );
    assert_eq!(store.list(&run()).await.unwrap(), [("a.log".to_owned(), 3)]);
    assert_eq!(
        store
            .append(&run(), "b.log", 0, Bytes::from("45"), 5)
            .await
            .unwrap(),
        Appended::Size(2)
    );
    assert_eq!(
        store
            .append(&RunId::new("r2"), "a.log", 0, Bytes::from("12345"), 5)
            .await
            .unwrap(),
        Appended::Size(5)
    );
}

async fn logs_are_separate_and_removed_by_run<S: LiveLogs>(store: &S) {
    store
        .append(&run(), "b.log", 0, Bytes::from("b"), MAX_RUN_BYTES)
        .await
        .unwrap();
    store
        .append(&run(), "a.log", 0, Bytes::from("aa"), MAX_RUN_BYTES)
        .await
        .unwrap();
    store
        .append(
            &RunId::new("r2"),
            "a.log",
            0,
            Bytes::from("other"),
            MAX_RUN_BYTES,
        )
        .await
        .unwrap();
    assert_eq!(
        store.list(&run()).await.unwrap(),
        [("a.log".to_owned(), 2), ("b.log".to_owned(), 1)]
    );
    assert_eq!(store.runs().await.unwrap(), [run(), RunId::new("r2")]);
    store.remove(&[]).await.unwrap();
    store.remove(&[run()]).await.unwrap();
    store.remove(&[run()]).await.unwrap();
    assert_eq!(store.list(&run()).await.unwrap(), vec![]);
    assert_eq!(store.read(&run(), "a.log", 0, 9).await.unwrap(), None);
    assert_eq!(store.runs().await.unwrap(), [RunId::new("r2")]);
}

async fn large_log_is_read_in_chunks<S: LiveLogs>(store: &S) {
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1])
        .collect();
    for (number, part) in bytes.chunks(70_001).enumerate() {
        store
            .append(
                &run(),
                "w.log",
                number as u64 * 70_001,
                Bytes::copy_from_slice(part),
                MAX_RUN_BYTES,
            )
            .await
            .unwrap();
    }
    assert!(whole(store, "w.log", 0).await == bytes);
    assert!(whole(store, "w.log", 123_457).await == bytes[123_457..]);
    assert_eq!(
        store
            .read(&run(), "w.log", 0, 1000)
            .await
            .unwrap()
            .unwrap()
            .len(),
        1000
    );
}
