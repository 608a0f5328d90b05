//! Files of candidates or codebases: JSON, NDJSON or YAML, whose text fields are read as they are
//! written, so that a codebase may be called `2048` or `1e3`.

use anyhow::{Context, Result, bail};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use std::{collections::BTreeMap, fmt};

/// The fields of candidates and codebases that are text.
const TEXT_FIELDS: [&str; 15] = [
    "name",
    "branch_url",
    "url",
    "branch",
    "subpath",
    "vcs_type",
    "vcs_last_revision",
    "web_url",
    "codebase",
    "campaign",
    "command",
    "publish-policy",
    "change_set",
    "context",
    "requester",
];
/// The fields that are lists of text.
const TEXT_LISTS: [&str; 1] = ["followup_for"];

/// The fields of candidates and codebases that are neither.
const OTHER_FIELDS: [&str; 3] = ["value", "success_chance", "bucket"];

/// Returns the fields that the service does not know, with the first entry that has each: they have
/// no effect.
pub(super) fn unknown_fields(entries: &[Value]) -> BTreeMap<&str, usize> {
    let mut unknown = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let fields = entry.as_object().into_iter().flat_map(Map::keys);
        for field in fields.map(String::as_str) {
            let is_known = TEXT_FIELDS.contains(&field)
                || TEXT_LISTS.contains(&field)
                || OTHER_FIELDS.contains(&field);
            if !is_known {
                unknown.entry(field).or_insert(index);
            }
        }
    }
    unknown
}

/// An entry of a JSON file, with its values as they are written.
type JsonEntry = BTreeMap<String, Box<RawValue>>;

/// Reads text as it is written: also a number or a word that would be something else.
fn json_text(raw: &RawValue) -> serde_json::Result<Value> {
    let written = raw.get();
    match serde_json::from_str(written)? {
        Value::Number(_) | Value::Bool(_) => Ok(written.into()),
        other => Ok(other),
    }
}

fn json_value(field: &str, raw: &RawValue) -> serde_json::Result<Value> {
    if TEXT_FIELDS.contains(&field) {
        return json_text(raw);
    }
    if TEXT_LISTS.contains(&field)
        && let Ok(list) = serde_json::from_str::<Vec<Box<RawValue>>>(raw.get())
    {
        return list.iter().map(|raw| json_text(raw)).collect();
    }
    serde_json::from_str(raw.get())
}

fn of_json(entry: JsonEntry) -> Result<Value> {
    let entry = entry
        .into_iter()
        .map(|(field, raw)| Ok((field.clone(), json_value(&field, &raw)?)));
    Ok(Value::Object(entry.collect::<serde_json::Result<_>>()?))
}

/// An entry of a YAML file.
struct YamlEntry(Map<String, Value>);

impl<'de> Deserialize<'de> for YamlEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;

        impl<'de> Visitor<'de> for Entry {
            type Value = YamlEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entry with fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<YamlEntry, A::Error> {
                let mut entry = Map::new();
                while let Some(field) = fields.next_key::<String>()? {
                    let value = if TEXT_FIELDS.contains(&field.as_str()) {
                        fields.next_value::<Option<String>>()?.into()
                    } else if TEXT_LISTS.contains(&field.as_str()) {
                        fields.next_value::<Option<Vec<String>>>()?.into()
                    } else {
                        fields.next_value::<Value>()?
                    };
                    entry.insert(field, value);
                }
                Ok(YamlEntry(entry))
            }
        }

        deserializer.deserialize_map(Entry)
    }
}

/// Parses a list of entries in JSON, NDJSON or YAML.
///
/// # Errors
///
/// Returns an error when the text is none of them, or no list.
pub(super) fn entries(text: &str) -> Result<Vec<Value>> {
    if let Ok(list) = serde_json::from_str::<Vec<JsonEntry>>(text) {
        return list.into_iter().map(of_json).collect();
    }
    if let Ok(entry) = serde_json::from_str::<JsonEntry>(text) {
        return Ok(vec![of_json(entry)?]);
    }
    if serde_json::from_str::<IgnoredAny>(text).is_ok() {
        bail!("the file holds no list of entries");
    }
    let lines: Result<Vec<JsonEntry>, _> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str)
        .collect();
    if let Ok(lines) = lines {
        return lines.into_iter().map(of_json).collect();
    }
    let read: Vec<YamlEntry> = serde_saphyr::from_str(text).context(
        "the file is neither JSON nor NDJSON, and as YAML it is broken or holds no list of entries",
    )?;
    Ok(read
        .into_iter()
        .map(|entry| Value::Object(entry.0))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_from_json_ndjson_and_yaml() {
        for text in [
            "[{\"name\": \"a\"}, {\"name\": \"b\"}]",
            "{\"name\": \"a\"}\n\n{\"name\": \"b\"}\n",
            "- name: a\n- name: b\n",
        ] {
            let names: Vec<_> = entries(text)
                .unwrap()
                .iter()
                .map(|entry| entry["name"].clone())
                .collect();
            assert_eq!(names, ["a", "b"], "{text}");
        }
    }

    #[test]
    fn single_json_object_is_one_entry() {
        assert_eq!(entries("{\"name\": \"a\"}").unwrap().len(), 1);
    }

    #[test]
    fn unknown_fields_are_named_once() {
        let read = entries("- {name: a, vaule: 1}\n- {name: b, vaule: 2, x: 1}").unwrap();
        let unknown: Vec<_> = unknown_fields(&read).into_iter().collect();
        assert_eq!(unknown, [("vaule", 0), ("x", 1)]);
    }

    #[test]
    fn text_without_a_list_is_rejected() {
        for bad in ["5", "name: a", "{nonsense", "- a: [1"] {
            assert!(entries(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_stays_as_it_is_written() {
        for (yaml, json, text) in [
            ("2048", "2048", "2048"),
            ("1e3", "1e3", "1e3"),
            ("0x10", "\"0x10\"", "0x10"),
            ("007", "\"007\"", "007"),
            ("1.50", "1.50", "1.50"),
            ("yes", "\"yes\"", "yes"),
            ("true", "true", "true"),
            ("2026-01-02", "\"2026-01-02\"", "2026-01-02"),
            ("'a b'", "\"a b\"", "a b"),
            ("\"null\"", "\"null\"", "null"),
        ] {
            for field in [
                "name",
                "codebase",
                "campaign",
                "change_set",
                "context",
                "branch",
            ] {
                let yaml = format!("- {field}: {yaml}\n");
                assert_eq!(entries(&yaml).unwrap()[0][field], text, "{yaml}");
                let json = format!("[{{\"{field}\": {json}}}]");
                assert_eq!(entries(&json).unwrap()[0][field], text, "{json}");
                let line = json.trim_matches(['[', ']']).to_owned();
                let lines = format!("{line}\n{line}\n");
                assert_eq!(entries(&lines).unwrap()[1][field], text, "{lines}");
            }
        }
    }

    #[test]
    fn null_is_no_text() {
        for text in [
            "- name: a\n  branch: null\n",
            "- name: a\n  branch: ~\n",
            "- name: a\n  branch:\n",
            "[{\"name\": \"a\", \"branch\": null}]",
        ] {
            assert_eq!(entries(text).unwrap()[0]["branch"], Value::Null, "{text}");
        }
    }

    #[test]
    fn numbers_and_lists_keep_their_type() {
        for text in [
            "- value: 5\n  success_chance: 0.5\n  followup_for: [123, 4e5]\n  other: {a: [1]}\n",
            "[{\"value\": 5, \"success_chance\": 0.5, \"followup_for\": [123, \"4e5\"], \
             \"other\": {\"a\": [1]}}]",
        ] {
            let entry = entries(text).unwrap().remove(0);
            assert_eq!(
                entry,
                serde_json::json!({
                    "value": 5,
                    "success_chance": 0.5,
                    "followup_for": ["123", "4e5"],
                    "other": { "a": [1] },
                }),
                "{text}"
            );
        }
    }
}
