//! The JSON schema of a settings file, made from the types of [`super::raw`], for editors and
//! validators.

use super::{defaults::DEFAULTS, error::SettingsError, raw::Raw};
use figment::{
    Figment,
    providers::{Format, Toml},
};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Returns the JSON schema of a settings file.
///
/// # Errors
///
/// Returns an error when the built-in defaults are not TOML, which is a defect.
pub fn schema() -> Result<Value, SettingsError> {
    // Without references between subschemas, each table is found below the key that it belongs to.
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Raw>()
        .to_value();
    let defaults: Map<String, Value> = Figment::from(Toml::string(DEFAULTS))
        .extract()
        .map_err(|e| SettingsError::from(&e))?;
    add_defaults(&mut schema, &defaults);
    join_lines(&mut schema);
    Ok(schema)
}

/// Joins the lines of each paragraph of the descriptions, so that the schema does not depend on how
/// doc comments are wrapped.
fn join_lines(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(description)) = object.get_mut("description") {
                let paragraphs = description.split("\n\n");
                let joined: Vec<_> = paragraphs.map(|text| text.replace('\n', " ")).collect();
                *description = joined.join("\n\n");
            }
            object.values_mut().for_each(join_lines);
        }
        Value::Array(list) => list.iter_mut().for_each(join_lines),
        _ => {}
    }
}

/// Notes the default of each property of a table, and of the tables below it.
fn add_defaults(table: &mut Value, defaults: &Map<String, Value>) {
    for (key, default) in defaults {
        let Some(property) = table.pointer_mut(&format!("/properties/{key}")) else {
            continue;
        };
        match default {
            Value::Object(inner) if property.get("properties").is_some() => {
                add_defaults(property, inner);
            }
            default => {
                if let Some(property) = property.as_object_mut() {
                    property.insert("default".to_owned(), default.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKED_IN: &str = include_str!("../../config/settings.schema.json");

    #[test]
    fn checked_in_schema_is_the_schema_of_the_types() {
        let of_types = serde_json::to_string_pretty(&schema().unwrap()).unwrap();
        assert_eq!(
            CHECKED_IN.trim_end(),
            of_types,
            "config/settings.schema.json is out of date; renew it with: \
             cargo run -- config --schema > config/settings.schema.json"
        );
    }

    /// Calls `check` with the name and the schema of each property, also of those in tables and
    /// lists.
    fn each_property(schema: &Value, check: &mut impl FnMut(&str, &Value)) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            check(name, property);
            each_property(property, check);
            each_property(&property["items"], check);
            each_property(&property["additionalProperties"]["items"], check);
            for variant in property["anyOf"].as_array().into_iter().flatten() {
                each_property(variant, check);
            }
        }
    }

    #[test]
    fn every_property_has_a_description() {
        let mut count = 0;
        each_property(&schema().unwrap(), &mut |name, property| {
            count += 1;
            assert!(property["description"].is_string(), "{name}: {property}");
        });
        assert!(count > 90, "only {count} properties were found");
    }

    #[test]
    fn descriptions_state_the_defaults() {
        each_property(&schema().unwrap(), &mut |name, property| {
            let default = &property["default"];
            let stated = match default {
                Value::String(_) | Value::Number(_) | Value::Bool(_) => format!("`{default}`"),
                _ => return,
            };
            let description = property["description"].as_str().unwrap();
            assert!(
                description.contains(&stated),
                "the description of {name} should say that its default is {stated}: {description}"
            );
        });
    }

    #[test]
    fn keys_of_layered_tables_are_optional_and_those_of_list_entries_are_not() {
        let schema = schema().unwrap();
        assert_eq!(schema.get("required"), None);
        assert_eq!(schema.pointer("/properties/watch/required"), None);
        assert_eq!(
            schema.pointer("/properties/retry/items/required"),
            Some(&serde_json::json!(["name", "attempts", "then"]))
        );
    }
}
