use super::*;
use figment::util::map;

fn no_flags() -> Flags {
    Flags(figment::value::Dict::new())
}

fn load_text(text: &str) -> Result<Loaded, SettingsError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    load(&[file.path().to_owned()], no_flags())
}

fn error_of(text: &str) -> String {
    load_text(text).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn shipped_files_load() {
    for file in ["config/default.toml", "config/local.toml"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
        let loaded = load(&[path], no_flags()).unwrap();
        assert_eq!(loaded.settings.port, 9911, "{file}");
    }
}

#[test]
fn flags_override_files() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"port = 1\npublic_port = 2\n").unwrap();
    let flags = Flags(map! { "port".to_owned() => 3_u16.into() });
    let settings = load(&[file.path().to_owned()], flags).unwrap().settings;
    assert_eq!(settings.port, 3);
    assert_eq!(settings.public_port, Some(2));
}

#[test]
fn errors_name_key_and_layer_without_secrets() {
    for (text, key) in [
        ("port = \"x\"", "port"),
        ("nonsense = 1", "nonsense"),
        ("store = \"tape:/dev/st0\"", "store"),
        ("store = \"mysql://u:secret@h/db\"", "store"),
        ("events = \"amqp://u:secret@h/db\"", "events"),
        ("artifacts = \"ftp://u:secret@h/db\"", "artifacts"),
        ("logs = \"gs://\"", "logs"),
        (
            "[postgres]\nmax_connections = 0\nstatement_timeout_seconds = 1",
            "postgres.max_connections",
        ),
        ("public_vcs_location = \"nowhere\"", "public_vcs_location"),
        ("[limits]\njson_body = \"many\"", "limits.json_body"),
        ("[[campaign]]\nname = \"X\"", "campaign"),
        ("run_timeout_minutes = 0", "run_timeout_minutes"),
        (
            "[publish_policies]\np = [{ role = \"main\", mode = \"shout\" }]",
            "publish_policies",
        ),
    ] {
        let error = error_of(text);
        assert!(error.contains(key), "{text}: {error} does not name {key}");
        assert!(error.contains("from"), "{text}: {error} names no layer");
        assert!(!error.contains("secret"), "{text}: {error} shows a secret");
    }
}

#[test]
fn secrets_are_read_from_files() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut secret, b"elsewhere\n").unwrap();
    let path = secret.path().display();
    let loaded = load_text(&format!("store = \"sled:/data/{{file:{path}}}\"")).unwrap();
    assert_eq!(
        loaded.settings.store,
        StoreChoice::Sled("/data/elsewhere".into())
    );
}

#[test]
fn missing_secret_is_an_error() {
    let error = error_of("store = \"sled:{env:NO_SUCH_VARIABLE_HERE}\"");
    assert!(error.contains("NO_SUCH_VARIABLE_HERE"), "{error}");
}

#[test]
fn production_example_loads() {
    let secret = "{file:/etc/janitor-runner/database-password}";
    let production = include_str!("../../config/production.example.toml");
    assert!(production.contains(secret));
    let settings = load_text(&production.replace(secret, "geheim"))
        .unwrap()
        .settings;
    let StoreChoice::Postgres(postgres) = &settings.store else {
        panic!("the store is {}", settings.store);
    };
    assert!(postgres.url.ends_with("geheim@db.internal/janitor"));
    assert_eq!(
        settings.store.to_string(),
        "Postgres, database janitor at db.internal"
    );
    assert_eq!(settings.logs.to_string(), "gs://example-janitor-logs");
}

#[test]
fn campaigns_example_loads() {
    let text = include_str!("../../examples/deploy/campaigns.toml");
    let settings = load_text(text).unwrap().settings;
    assert_eq!(settings.coordinator.campaigns.campaigns.len(), 1);
}

#[test]
fn compose_example_sets_known_variables() {
    let compose = include_str!("../../examples/deploy/compose.yaml");
    let lines: Vec<String> = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix(PREFIX)?.split_once(": "))
        .map(|(key, value)| {
            let key = key.to_lowercase().replace("__", ".");
            match value.trim_matches(['"', '\'']) {
                "true" => format!("{key} = true"),
                list if list.starts_with('[') => format!("{key} = {list}"),
                value => format!("{key} = {value:?}"),
            }
        })
        .collect();
    assert_eq!(lines.len(), 10);
    let settings = load_text(&lines.join("\n")).unwrap().settings;
    assert!(
        matches!(settings.store, StoreChoice::Postgres(_)),
        "the store is {}",
        settings.store
    );
}

#[test]
fn janitor_conf_locations_choose_the_stores() {
    let locations = "database_location: 'postgresql://j@db/janitor'\n\
                     redis_location: 'redis://r/'\n\
                     artifact_location: 'gs://a/'\n\
                     logs_location: 'https://s3.example/'\n";
    let settings = load_text(locations).unwrap().settings;
    assert!(
        matches!(settings.store, StoreChoice::Postgres(_)),
        "the store is {}",
        settings.store
    );
    assert_eq!(settings.events.as_deref(), Some("redis://r/"));
    assert_eq!(settings.coordination.as_deref(), Some("redis://r/"));
    assert_eq!(settings.artifacts.to_string(), "gs://a");
    let FileStore::S3(s3) = &settings.logs else {
        panic!("logs are in {}", settings.logs);
    };
    assert_eq!(s3.bucket, "debian-janitor");
    assert_eq!(s3.endpoint.as_deref(), Some("https://s3.example/"));
}

#[test]
fn logs_at_an_https_endpoint_are_signed_and_public() {
    let conf = "logs_location: \"https://s3.example.com\"\n";
    let FileStore::S3(logs) = load_text(conf).unwrap().settings.logs else {
        panic!("not S3");
    };
    assert_eq!(logs.endpoint.as_deref(), Some("https://s3.example.com"));
    assert_eq!(logs.credentials, S3Credentials::Default);
    assert_eq!(logs.acl.as_deref(), Some("public-read"));
    let text =
        "logs = \"https://s3.example.com\"\n[s3]\nlog_acl = \"\"\ncredentials = \"anonymous\"\n";
    let FileStore::S3(logs) = load_text(text).unwrap().settings.logs else {
        panic!("not S3");
    };
    assert_eq!(logs.credentials, S3Credentials::Anonymous);
    assert_eq!(logs.acl, None);
}

#[test]
fn half_a_key_of_s3_is_an_error() {
    for (text, key) in [
        ("[s3]\naccess_key_id = \"AKIA\"", "s3.access_key_id"),
        ("[s3]\ncredentials = \"none\"", "s3.credentials"),
    ] {
        let error = error_of(&format!("logs = \"s3://b/\"\n{text}\n"));
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn janitor_conf_campaigns_are_read() {
    let loaded = load_text(include_str!("../../tests/golden/campaigns.conf")).unwrap();
    let coordinator = loaded.settings.coordinator;
    assert_eq!(
        coordinator.committer.as_deref(),
        Some("Janitor Bot <janitor@example.com>")
    );
    assert_eq!(coordinator.campaigns.campaigns.len(), 7);
    let full = coordinator.campaigns.distribution("full").unwrap();
    assert_eq!(full.component, ["main", "contrib"]);
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn campaigns_of_janitor_conf_have_limits_of_their_own() {
    let limits = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let conf = PathBuf::from("tests/golden/campaigns.conf");
        let loaded = load(&[conf, file.path().to_owned()], no_flags());
        loaded.map(|loaded| {
            let campaigns = loaded.settings.coordinator.campaigns.campaigns;
            let limits = campaigns
                .into_iter()
                .map(|campaign| (campaign.name.to_string(), campaign.max_run_duration_minutes));
            limits.filter(|(_, limit)| limit.is_some()).collect()
        })
    };
    let text = "[watch]\nmax_run_duration_minutes_by_campaign = { gen = 5 }\n";
    let limited: Vec<_> = limits(text).unwrap();
    assert_eq!(limited, [("gen".to_owned(), Some(5))]);
    let unknown = limits(&text.replace("gen", "gne")).unwrap_err().to_string();
    assert!(
        unknown.contains("max_run_duration_minutes_by_campaign.gne"),
        "{unknown}"
    );
}

#[test]
fn unknown_fields_of_janitor_conf_are_warnings() {
    let text = "committer: 'A <a@b>' # x\n\
                novelty: 5\n\
                strange { a: [1, 2] b < c: \"}\" > }\n\
                origin: 'x'\n\
                campaign { name: \"aa\" command: \"x\" later_field: true generic_build {} \
                merge_proposal { title: 't' } }";
    let loaded = load_text(text).unwrap();
    assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
    let coordinator = loaded.settings.coordinator;
    assert_eq!(coordinator.campaigns.campaigns.len(), 1);
    assert_eq!(coordinator.committer.as_deref(), Some("A <a@b>"));
}

#[test]
fn deep_nesting_of_janitor_conf_is_rejected() {
    let deep = format!("campaign {}{}", "{ a ".repeat(100_000), "}".repeat(100_000));
    let error = error_of(&deep);
    assert!(error.contains("nest"), "{error}");
}

#[test]
fn unfinished_janitor_conf_is_rejected() {
    for text in ["campaign { name: \"aa\"", "committer: \"unfinished"] {
        assert!(load_text(text).is_err(), "{text}");
    }
}

#[test]
fn every_publish_mode_and_afterwards_of_the_schema_is_accepted() {
    let schema = schema().unwrap();
    let values = |pointer: &str| schema.pointer(pointer).and_then(|v| v.as_array()).unwrap();
    let modes = "/properties/publish_policies/additionalProperties/items/properties/mode/enum";
    for mode in values(modes) {
        let text = format!("[publish_policies]\np = [{{ role = \"main\", mode = {mode} }}]");
        assert!(load_text(&text).is_ok(), "{text}");
    }
    for then in values("/properties/retry/items/properties/then/enum") {
        let text = format!("[[retry]]\nname = \"r\"\nattempts = 1\nthen = {then}");
        assert!(load_text(&text).is_ok(), "{text}");
    }
}

#[test]
fn janitor_conf_is_read_as_editors_and_protobuf_write_it() {
    let plain = "committer: \"A <a@b>\"\ncampaign {\n  name: \"aa\"\n  command: \"x\"\n}\n";
    for text in [
        plain.to_owned(),
        format!("\u{feff}{plain}"),
        plain.replace('\n', "\r\n"),
        "# a comment\ncampaign\n{\n name: \"aa\"\n command: \"x\"\n}\ncommitter: 'A <a@b>'"
            .to_owned(),
        "campaign # why\n\n{ name: 'aa'; command: 'x'; };\ncommitter: 'A <a@b>';".to_owned(),
        "committer: 'A <a@b>', origin: 'o', campaign { name: 'aa', command: 'x', },".to_owned(),
        "committer: 'A <a@b>'; novelty: 5; campaign < command: 'x'; name: 'aa' >".to_owned(),
        "novelty { a: 1; }; committer: 'A <a@b>' campaign: [{ name: 'aa' command: 'x' }]"
            .to_owned(),
    ] {
        let loaded = load_text(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let coordinator = loaded.settings.coordinator;
        assert_eq!(coordinator.committer.as_deref(), Some("A <a@b>"), "{text}");
        let campaigns = &coordinator.campaigns.campaigns;
        assert_eq!(campaigns.len(), 1, "{text}");
        assert_eq!(campaigns[0].command.as_deref(), Some("x"), "{text}");
    }
}

#[test]
fn toml_may_begin_with_a_byte_order_mark() {
    let settings = load_text("\u{feff}port = 5\r\n").unwrap().settings;
    assert_eq!(settings.port, 5);
}

#[test]
fn redis_may_be_a_socket() {
    for (url, used) in [
        ("unix:/run/redis.sock", "unix:/run/redis.sock"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        (
            "redis+unix:///run/r.sock?db=1&password=p%40",
            "redis+unix:///run/r.sock?db=1&pass=p%40",
        ),
        ("rediss://h/", "rediss://h/"),
    ] {
        let settings = load_text(&format!("events = {url:?}")).unwrap().settings;
        assert_eq!(settings.events.as_deref(), Some(used));
    }
    for bad in ["unix:", "unix://run/redis.sock", "unix:///", "tcp://h/"] {
        let error = error_of(&format!("events = {bad:?}"));
        assert!(error.contains("events"), "{error}");
    }
}

#[test]
fn public_port_zero_is_no_public_api() {
    assert_eq!(
        load_text("public_port = 0").unwrap().settings.public_port,
        None
    );
    assert_eq!(load_text("").unwrap().settings.public_port, Some(9919));
}

#[test]
fn listen_address_may_be_a_name() {
    let settings = load_text("listen_address = \"runner.internal\"")
        .unwrap()
        .settings;
    assert_eq!(settings.listen_address.to_string(), "runner.internal");
    let error = error_of("listen_address = \"\"");
    assert!(error.contains("listen_address"), "{error}");
}

#[test]
fn login_of_a_repository_keeps_its_port() {
    let loaded = load_text(
        "[[vcs.credentials]]\nhost = \"Forge.example:8443\"\nusername = \"u\"\npassword = \"p\"\n",
    );
    let login = loaded.unwrap().settings.vcs.logins.remove(0);
    assert_eq!(login.host, "forge.example:8443");
}
