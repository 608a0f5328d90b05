//! The rules: which layer may depend on what, which names only bootstrap knows, and no cycles between siblings.

use super::source::{ModulePath, Source, Sources};
use std::collections::{BTreeMap, BTreeSet};

/// A layer of ARCHITECTURE.md.
pub struct Layer {
    /// Its module; adapters are layers of their own.
    pub module: &'static [&'static str],
    /// The layers that it may depend on; each may depend on itself.
    pub may_use: &'static [&'static str],
    /// The crates that it may use.
    pub crates: Crates,
}

/// A rule for other crates. Entries may go below a crate: `std::fs`.
pub enum Crates {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

/// What reaches outside of the process.
const INPUT_AND_OUTPUT: &[&str] = &[
    "axum",
    "sqlx",
    "reqwest",
    "redis",
    "figment",
    "gcloud_storage",
    "object_store",
    "uuid",
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "tokio::fs",
    "tokio::net",
    "tokio::process",
    "chrono::Utc::now",
    "std::time::SystemTime",
];
const DOMAIN_CRATES: &[&str] = &[
    "std",
    "serde",
    "serde_json",
    "chrono",
    "thiserror",
    "url",
    "deb822_fast",
    "debversion",
    "gix_validate",
    "shlex",
];
const PORT_CRATES: &[&str] = &[
    "std",
    "serde",
    "serde_json",
    "chrono",
    "thiserror",
    "url",
    "async_trait",
    "bytes",
    "tokio::io",
    "tokio::sync::broadcast",
];
const PORTS: &[&str] = &["domain", "ports"];
const STORE: &[&str] = &["domain", "ports", "metrics", "adapters::support"];

/// The engines of the embedded stores, each for one layer only.
const ENGINES: [(&str, &[&str]); 2] = [
    ("sled", &["adapters", "sled"]),
    ("redb", &["adapters", "redb"]),
];

const fn layer(
    module: &'static [&'static str],
    may_use: &'static [&'static str],
    crates: Crates,
) -> Layer {
    Layer {
        module,
        may_use,
        crates,
    }
}

/// The table of ARCHITECTURE.md. Bootstrap and the command line may use everything.
pub const LAYERS: &[Layer] = &[
    layer(&["domain"], &[], Crates::Only(DOMAIN_CRATES)),
    layer(&["ports"], &["domain"], Crates::Only(PORT_CRATES)),
    layer(
        &["services"],
        &["domain", "ports", "metrics"],
        Crates::AllBut(INPUT_AND_OUTPUT),
    ),
    // Figures of the process are read from /proc.
    layer(
        &["metrics"],
        &["domain"],
        Crates::AllBut(&["axum", "sqlx", "reqwest", "redis", "figment", "tokio::fs"]),
    ),
    layer(
        &["adapters", "wire"],
        &["domain", "ports", "services"],
        Crates::AllBut(INPUT_AND_OUTPUT),
    ),
    layer(
        &["adapters", "http"],
        &[
            "domain",
            "ports",
            "services",
            "metrics",
            "adapters::wire",
            "adapters::support",
            "adapters::local::spool",
        ],
        Crates::AllBut(&[
            "sqlx",
            "redis",
            "figment",
            "reqwest",
            "gcloud_storage",
            "object_store",
        ]),
    ),
    layer(
        &["adapters", "embedded"],
        STORE,
        Crates::AllBut(&["axum", "sqlx", "redis", "reqwest", "figment"]),
    ),
    layer(
        &["adapters", "sled"],
        &["domain", "ports", "metrics", "adapters::embedded"],
        Crates::AllBut(&["axum", "sqlx", "redis", "reqwest", "figment"]),
    ),
    layer(
        &["adapters", "redb"],
        &["domain", "ports", "metrics", "adapters::embedded"],
        Crates::AllBut(&["axum", "sqlx", "redis", "reqwest", "figment"]),
    ),
    layer(
        &["adapters", "memory"],
        &["domain", "ports", "metrics", "adapters::embedded"],
        Crates::AllBut(INPUT_AND_OUTPUT),
    ),
    layer(
        &["adapters", "postgres"],
        STORE,
        Crates::AllBut(&["axum", "redis", "reqwest", "figment"]),
    ),
    layer(
        &["adapters", "redis"],
        &[
            "domain",
            "ports",
            "metrics",
            "adapters::wire",
            "adapters::support",
        ],
        Crates::AllBut(&["axum", "sqlx", "reqwest", "figment"]),
    ),
    layer(
        &["adapters", "objects"],
        STORE,
        Crates::AllBut(&[
            "axum",
            "sqlx",
            "redis",
            "figment",
            "gcloud_storage",
            "object_store",
        ]),
    ),
    layer(
        &["adapters", "gcs"],
        &[
            "domain",
            "ports",
            "metrics",
            "adapters::objects",
            "adapters::support",
        ],
        Crates::AllBut(&["axum", "sqlx", "redis", "figment", "object_store"]),
    ),
    layer(
        &["adapters", "s3"],
        &[
            "domain",
            "ports",
            "metrics",
            "adapters::objects",
            "adapters::support",
        ],
        Crates::AllBut(&["axum", "sqlx", "redis", "figment", "gcloud_storage"]),
    ),
    layer(
        &["adapters", "local"],
        STORE,
        Crates::AllBut(&["axum", "sqlx", "redis", "reqwest", "figment"]),
    ),
    layer(
        &["adapters", "fallback"],
        &[
            "domain",
            "ports",
            "metrics",
            "adapters::support",
            "adapters::local",
        ],
        Crates::AllBut(&["axum", "sqlx", "redis", "reqwest", "figment"]),
    ),
    layer(
        &["adapters", "backchannel"],
        &["domain", "ports", "metrics", "adapters::support"],
        Crates::AllBut(&["axum", "sqlx", "redis", "figment"]),
    ),
    layer(
        &["adapters", "support"],
        PORTS,
        Crates::AllBut(&["axum", "sqlx", "redis", "figment"]),
    ),
    layer(
        &["adapters", "in_process"],
        PORTS,
        Crates::AllBut(INPUT_AND_OUTPUT),
    ),
    layer(
        &["adapters", "clock"],
        PORTS,
        Crates::AllBut(&["axum", "sqlx", "redis", "reqwest", "figment"]),
    ),
    layer(
        &["adapters", "vcs"],
        &["domain", "ports", "metrics", "adapters::support"],
        Crates::AllBut(&["axum", "sqlx", "redis", "figment"]),
    ),
    layer(
        &["settings"],
        &["domain", "services::CoordinatorConfig"],
        Crates::AllBut(&["axum", "sqlx", "redis", "reqwest", "tokio"]),
    ),
    layer(
        &["worker"],
        &[
            "domain",
            "http_client",
            "tls",
            "ports::clock",
            "adapters::clock",
        ],
        Crates::AllBut(&["sqlx", "redis", "figment"]),
    ),
    layer(
        &["http_client"],
        &["tls"],
        Crates::AllBut(&["axum", "sqlx", "redis", "figment"]),
    ),
    layer(
        &["tls"],
        &[],
        Crates::AllBut(&["axum", "sqlx", "redis", "figment"]),
    ),
];

/// The crates that make a rule depend on when and where it runs.
const EFFECTS: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures",
    "async_trait",
    "tracing",
    "chrono::Utc::now",
    "chrono::Local",
    "std::time::SystemTime",
    "std::time::Instant",
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
];

/// Concrete adapters: only bootstrap and their own folders know them.
const CONCRETE: &[&str] = &[
    "SledKv",
    "RedbKv",
    "MemoryKv",
    "Embedded",
    "Postgres",
    "LocalArtifacts",
    "LocalLogs",
    "GcsBucket",
    "S3Bucket",
    "ObjectArtifacts",
    "ObjectLogs",
    "FallbackArtifacts",
    "FallbackLogs",
    "InProcessEvents",
    "RedisEvents",
    "MirroredStores",
    "NoBackchannel",
    "PollingBackchannel",
    "JenkinsBackchannel",
    "Backchannels",
    "GuardedClient",
    "NoVcs",
    "BranchProber",
    "CachedCredentials",
];
/// Who may name one. Among the outgoing adapters, the table of layers says which is built on which.
const MAY_NAME_CONCRETE: &[&[&str]] = &[&["bootstrap"], &["adapters"]];

/// The largest number of lines of a file.
pub const MAX_LINES: usize = 500;

fn begins_with(path: &[String], prefix: &str) -> bool {
    let mut segments = path.iter();
    prefix
        .split("::")
        .all(|part| segments.next().is_some_and(|segment| segment == part))
}

fn is_below(module: &[String], prefix: &[&str]) -> bool {
    module.len() >= prefix.len() && module.iter().zip(prefix).all(|(one, other)| one == other)
}

fn layer_of(module: &[String]) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| is_below(module, layer.module))
}

fn shown(path: &[String]) -> String {
    path.join("::")
}

/// Dependencies that the table does not allow.
pub fn layers(sources: &Sources) -> Vec<String> {
    let mut broken = vec![];
    for source in &sources.0 {
        let Some(layer) = layer_of(&source.module) else {
            continue;
        };
        for path in &source.paths {
            if !is_allowed(layer, sources, path) {
                broken.push(format!("{}: {}", source.file, shown(path)));
            }
        }
    }
    broken
}

fn is_allowed(layer: &Layer, sources: &Sources, path: &[String]) -> bool {
    if path.first().is_some_and(|first| first == "crate") {
        let inner = &path[1..];
        // A path to the root, or to a module that only holds others, names no layer.
        let names_a_layer = sources
            .module_of_path(path)
            .is_some_and(|module| module != ["adapters"]);
        return !names_a_layer
            || is_below(inner, layer.module)
            || layer
                .may_use
                .iter()
                .any(|allowed| begins_with(inner, allowed));
    }
    let is_of_another =
        |(engine, module): &(&str, &[&str])| begins_with(path, engine) && layer.module != *module;
    if ENGINES.iter().any(is_of_another) {
        return false;
    }
    let core = ["core", "alloc"].contains(&path[0].as_str());
    match layer.crates {
        Crates::Only(allowed) => core || allowed.iter().any(|prefix| begins_with(path, prefix)),
        Crates::AllBut(denied) => !denied.iter().any(|prefix| begins_with(path, prefix)),
    }
}

/// Clocks, threads, tasks, files and logs in the domain.
pub fn effects_in_domain(sources: &Sources) -> Vec<String> {
    let domain = |source: &&Source| is_below(&source.module, &["domain"]);
    let mut broken = vec![];
    for source in sources.0.iter().filter(domain) {
        if source.has_async {
            broken.push(format!("{}: async", source.file));
        }
        for path in &source.paths {
            if EFFECTS.iter().any(|effect| begins_with(path, effect)) {
                broken.push(format!("{}: {}", source.file, shown(path)));
            }
        }
    }
    broken
}

/// Concrete adapters that somebody else names.
pub fn concrete_adapters(sources: &Sources) -> Vec<String> {
    let mut broken = vec![];
    for source in &sources.0 {
        let http = is_below(&source.module, &["adapters", "http"]);
        let may_name = MAY_NAME_CONCRETE
            .iter()
            .any(|prefix| is_below(&source.module, prefix));
        if may_name && !http {
            continue;
        }
        for path in &source.paths {
            let is_adapter = begins_with(path, "crate::adapters");
            if is_adapter && path.iter().any(|name| CONCRETE.contains(&name.as_str())) {
                broken.push(format!("{}: {}", source.file, shown(path)));
            }
        }
    }
    broken
}

/// Files that are too long to be read at once.
pub fn long_files(files: &[(String, String)]) -> Vec<String> {
    files
        .iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(file, lines)| format!("{file} has {lines} lines"))
        .collect()
}

type Graph = BTreeMap<ModulePath, BTreeSet<ModulePath>>;

/// Which children of a folder depend on which of their siblings. A folder among them counts as one module, and the parent,
/// which puts its children together, is none of them.
fn siblings(sources: &Sources, folder: &[String]) -> Graph {
    let child = |module: &[String]| {
        (module.starts_with(folder) && module.len() > folder.len())
            .then(|| module[..=folder.len()].to_vec())
    };
    let mut graph = Graph::new();
    for source in &sources.0 {
        let Some(from) = child(&source.module) else {
            continue;
        };
        let targets = source.paths.iter().filter_map(|path| {
            sources
                .module_of_path(path)
                .and_then(|module| child(&module))
        });
        let others = targets.filter(|to| *to != from).collect::<BTreeSet<_>>();
        graph.entry(from).or_default().extend(others);
    }
    graph
}

/// A way from a module back to itself.
fn cycle_through(graph: &Graph, start: &ModulePath) -> Option<Vec<ModulePath>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in graph.get(way.last()?).into_iter().flatten() {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push([way.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

/// Cycles between the modules of each folder.
pub fn cycles(sources: &Sources) -> Vec<String> {
    let folders: BTreeSet<ModulePath> = sources
        .0
        .iter()
        .flat_map(|source| (1..source.module.len()).map(|depth| source.module[..depth].to_vec()))
        .collect();
    let mut broken = BTreeSet::new();
    for folder in &folders {
        let graph = siblings(sources, folder);
        for start in graph.keys() {
            if let Some(mut way) = cycle_through(&graph, start) {
                // The same cycle is found from each of its modules: it is shown once.
                let first = way.iter().min().cloned();
                let turn = way.iter().position(|module| Some(module) == first.as_ref());
                way.rotate_left(turn.unwrap_or(0));
                let names: Vec<String> = way.iter().map(|module| shown(module)).collect();
                broken.insert(format!("{} -> {}", names.join(" -> "), names[0]));
            }
        }
    }
    broken.into_iter().collect()
}
