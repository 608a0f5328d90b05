//! Text that clients may send comes back as it was, from every store. NUL characters and lone surrogates are refused before any
//! store sees them.

use super::{contract, steps::*};
use crate::support::{start, values::*};
use janitor_runner::{
    domain::{
        active_run::ActiveRun,
        codebase::Codebase,
        name::RunId,
        pause::{Pause, Scope},
        queue::{Bucket, EnqueueRequest},
        run::{ResultBranch, ResultTag, Run},
    },
    ports::{
        ActiveRunStore, Catalog, Credentials, LiveLogs, PauseStore, QueueStore, RunRecorder,
        RunStore,
    },
};
use serde_json::json;

contract!(
    odd_text_of_codebases_and_candidates_round_trips,
    odd_text_of_items_and_runs_round_trips,
    odd_names_are_distinguished,
);

/// Control characters, a noncharacter, four bytes, right to left with an override, a byte order mark, composed and decomposed
/// letters, and what SQL, JSON, shells and `LIKE` treat specially.
const ODD: [&str; 8] = [
    "\u{1}\u{1f}\u{7f}\u{85}",
    "a\u{ffff}\u{fdd0}b",
    "😀 \u{10ffff}",
    "שלום \u{202e}abc\u{202c}",
    "\u{feff}x",
    "é e\u{301}",
    "'\" \\ \\u0000 %_ $1 {} [] ; -- \r\n\t",
    " \u{2028}\u{a0} ",
];

fn odd() -> String {
    ODD.join("|")
}

async fn odd_text_of_codebases_and_candidates_round_trips<S: Catalog>(store: &S) {
    let codebase = Codebase {
        branch_url: Some(odd()),
        url: Some(odd()),
        branch: Some(odd()),
        subpath: Some(odd()),
        vcs_last_revision: Some(odd()),
        web_url: Some(odd()),
        ..bare_codebase("aa")
    };
    store
        .upload_codebases(vec![codebase.clone()])
        .await
        .unwrap();
    assert_eq!(store.codebases(99).await.unwrap(), [codebase]);
    let mut scheduled = new_candidate("aa");
    scheduled.new.candidate.key.change_set = Some(odd());
    scheduled.new.candidate.command = odd();
    scheduled.new.candidate.context = Some(odd());
    let mut expected = scheduled.new.candidate.clone();
    scheduled.enqueue.key = expected.key.clone();
    for _ in 0..2 {
        store
            .upload_candidates(vec![scheduled.clone()], start())
            .await
            .unwrap();
    }
    let stored = store.candidates(None, 99).await.unwrap();
    expected.id = stored[0].id;
    assert_eq!(stored, [expected]);
}

/// A run with odd text in every field.
fn odd_run(active: &ActiveRun) -> Run {
    let branch = |role: &str| ResultBranch {
        role: role.into(),
        name: Some(odd()),
        base: Some(odd()),
        revision: Some(odd()),
    };
    Run {
        command: odd(),
        description: Some(odd()),
        instigated_context: Some(odd()),
        context: Some(odd()),
        main_branch_revision: Some(odd()),
        revision: Some(odd()),
        codemod: Some(json!({ "odd": ODD, ODD[2]: ODD[6] })),
        branch_url: Some(odd()),
        subpath: Some(odd()),
        target_branch_url: Some(odd()),
        worker_link: Some(odd()),
        failure_stage: Some(odd()),
        failure_details: Some(json!([ODD, { ODD[3]: null }])),
        branches: Some(vec![branch(ODD[0]), branch(ODD[2])]),
        tags: Some(vec![ResultTag {
            name: Some(odd()),
            revision: odd(),
        }]),
        remotes: Some(json!({ ODD[5]: { "url": odd() } })),
        ..full_run(active)
    }
}

async fn odd_text_of_items_and_runs_round_trips<
    S: Catalog + QueueStore + ActiveRunStore + RunRecorder + RunStore,
>(
    store: &S,
) {
    codebases(store, &["aa"]).await;
    let mut request = EnqueueRequest {
        command: odd(),
        context: Some(odd()),
        requester: Some(odd()),
        ..enqueue_request("aa", Bucket::Default, 1.0)
    };
    request.key.change_set = Some(odd());
    store.enqueue(batch(vec![request.clone()])).await.unwrap();
    let active = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let item = &active.item;
    assert_eq!(item.key, request.key);
    assert_eq!(
        (&item.command, &item.context, &item.requester),
        (&request.command, &request.context, &request.requester)
    );
    // The request is deferred, which stores it as a record.
    store.enqueue(batch(vec![request.clone()])).await.unwrap();
    let reason = odd();
    let cancelled = store.cancel(&active.id, &reason).await.unwrap().unwrap();
    assert_eq!(cancelled.cancel, Some(odd()));
    let run = odd_run(&active);
    store.record(new_run(&active, run.clone())).await.unwrap();
    assert_eq!(store.run(&run.id).await.unwrap().unwrap(), run);
    let of_revision = store.run_of_revision(&pair("aa", "gen"), &odd()).await;
    assert_eq!(of_revision.unwrap().unwrap().id, run.id);
    let again = store.claim(claim("r2")).await.unwrap().unwrap().run.item;
    assert_eq!(
        (again.command, again.context),
        (request.command, request.context)
    );
}

async fn odd_names_are_distinguished<S: PauseStore + Credentials + LiveLogs + RunStore>(store: &S) {
    for (index, odd) in ODD.iter().enumerate() {
        let worker = Scope::Worker((*odd).to_owned());
        let reason = format!("{index} {odd}");
        store
            .pause(Pause {
                scope: worker,
                reason,
                since: start(),
                until: None,
            })
            .await
            .unwrap();
        let link = Some((*odd).to_owned());
        store
            .add(odd, &format!("secret {odd}"), link)
            .await
            .unwrap();
        let chunk = bytes::Bytes::from(odd.to_string());
        store
            .append(&RunId::new(*odd), odd, 0, chunk, 9_999)
            .await
            .unwrap();
        assert_eq!(store.run(&RunId::new(*odd)).await.unwrap(), None);
    }
    let pauses = store.pauses(start()).await.unwrap();
    assert_eq!(pauses.len(), ODD.len());
    for (index, odd) in ODD.iter().enumerate() {
        let reason = format!("{index} {odd}");
        assert!(pauses.iter().any(|pause| pause.reason == reason), "{odd:?}");
        let account = store.account(odd).await.unwrap().unwrap();
        assert_eq!(
            (account.name.as_str(), account.link.as_deref()),
            (*odd, Some(*odd))
        );
        let verified = store.verify(odd, &format!("secret {odd}")).await.unwrap();
        assert!(verified.is_some());
        let log = store.read(&RunId::new(*odd), odd, 0, 999).await.unwrap();
        assert_eq!(log.unwrap(), odd.as_bytes());
    }
}
