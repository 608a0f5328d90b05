//! Commands of candidates: leading `KEY=value` words are environment.

use super::Invalid;
use std::collections::BTreeMap;

fn is_assignment(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.split_once('=')?;
    let mut chars = key.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    (first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some((key, value))
}

/// Splits a command into its leading environment and the rest, quoted for a shell.
pub fn split_environment(command: &str) -> Result<(BTreeMap<String, String>, String), Invalid> {
    let words =
        shlex::split(command).ok_or_else(|| Invalid::new("command", "has an unfinished quote"))?;
    let assignments = words
        .iter()
        .take_while(|word| is_assignment(word).is_some())
        .count();
    if assignments == 0 {
        return Ok((BTreeMap::new(), command.to_owned()));
    }
    let (environment, rest) = words.split_at(assignments);
    let environment = environment
        .iter()
        .filter_map(|w| is_assignment(w))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let rest = rest
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ");
    Ok((environment, rest))
}

/// Quotes a word for a shell as Python's `shlex.quote` does: nothing for plain words, single quotes otherwise.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\"'\"'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leading_assignments_are_environment() {
        let (env, rest) = split_environment("FOO=bar BAZ='a b' cmd --opt 'x y'").unwrap();
        assert_eq!(
            env,
            BTreeMap::from([("FOO".into(), "bar".into()), ("BAZ".into(), "a b".into())])
        );
        assert_eq!(rest, "cmd --opt 'x y'");
        let (env, rest) = split_environment("cmd A=1 | tee x").unwrap();
        assert_eq!((env.len(), rest.as_str()), (0, "cmd A=1 | tee x"));
        assert!(split_environment("cmd 'open").is_err());
    }

    proptest! {
        #[test]
        fn quoting_survives_the_shell(word in "\\PC{0,20}") {
            prop_assert_eq!(shlex::split(&quote(&word)).unwrap(), vec![word]);
        }
    }
}
