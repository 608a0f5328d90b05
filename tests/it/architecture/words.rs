//! Words of our own that the glossary replaced: they must not come back.

/// Each is one or more words, in lower case; identifiers are taken apart (`WaitingRoom` is "waiting room").
const REPLACED: &[&str] = &[
    "told",
    "untold",
    "tell",
    "tells",
    "wish",
    "wishes",
    "fate",
    "fates",
    "news",
    "opening",
    "openings",
    "restraint",
    "restraints",
    "patience",
    "room",
    "rooms",
    "waiting room",
    "carry out",
    "carries out",
    "carried out",
    "hand out",
    "hands out",
    "handed out",
    "let go",
    "lets go",
    "let a role go",
    "stops to answer",
    "stop to answer",
    "sign of life",
    "signs of life",
    "give up",
    "gives up",
    "given up",
    "gave up",
    "stands still",
    "put right",
    "takes in",
    "look every",
    "ask every",
    "compare every",
    "renew every",
    "write every",
    "after failure",
];

/// Beginnings of constants whose names say nothing of what they limit.
const CONSTANTS: &[&str] = &["LONGEST_", "MOST_", "LARGEST_", "AT_ONCE", "TOGETHER"];

/// Names that are stored or sent, and so stay.
const ALLOWED: &[&str] = &[
    // Fields of stored runs and requests, in JSON.
    "given_up",
    "can_be_handed_out",
    "last_sign_of_life_seconds",
    // The variant that the glossary itself proposes.
    "NotGivenUp",
    // Columns and tables of earlier migrations.
    "runner_claim.wish",
    // Keys and fields of records in embedded stores.
    "last_news",
    "rename = \"wish\"",
    "\"wish\": {",
    "/wish/command",
];

/// The identifiers and words of a line, in lower case, one space between them.
fn words(line: &str) -> String {
    let mut text = String::from(" ");
    let mut after_lower = false;
    for c in line.chars() {
        if c.is_alphanumeric() {
            if c.is_uppercase() && after_lower {
                text.push(' ');
            }
            text.extend(c.to_lowercase());
        } else if !text.ends_with(' ') {
            text.push(' ');
        }
        after_lower = c.is_lowercase();
    }
    if !text.ends_with(' ') {
        text.push(' ');
    }
    text
}

fn problems(line: &str) -> Vec<String> {
    let mut line = line.to_owned();
    for allowed in ALLOWED {
        line = line.replace(allowed, " ");
    }
    let words = words(&line);
    let mut found: Vec<String> = REPLACED
        .iter()
        .filter(|phrase| words.contains(&format!(" {phrase} ")))
        .map(|phrase| (*phrase).to_owned())
        .collect();
    let constants = CONSTANTS.iter().filter(|name| {
        let start = line
            .find(**name)
            .filter(|start| !line[..*start].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        start.is_some()
    });
    found.extend(constants.map(|name| (*name).to_owned()));
    if line
        .trim_start()
        .trim_start_matches('/')
        .trim_start_matches('!')
        .starts_with(" Answers ")
    {
        found.push("Answers (doc comment)".to_owned());
    }
    found
}

/// The files that have the words for their own sake.
const ABOUT_WORDS: &[&str] = &["/architecture/words.rs", "/architecture/planted.rs"];

/// Uses of replaced words, as `file:line: word`.
pub fn found(files: &[(String, String)]) -> Vec<String> {
    let mut all = vec![];
    for (file, text) in files {
        if ABOUT_WORDS.iter().any(|about| file.ends_with(about)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for word in problems(line) {
                all.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    all
}
