//! Commands of candidates, whose leading `KEY=value` words are the environment.

use super::Invalid;
use std::collections::BTreeMap;

fn as_assignment(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.split_once('=')?;
    let mut chars = key.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    (first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some((key, value))
}

/// Splits a command into its leading environment and the rest, quoted for a shell. A command
/// without a leading environment is returned as it is.
///
/// # Errors
///
/// [`Invalid`] when a quote is not closed.
///
/// ```
/// use janitor_runner::domain::command::split_environment;
///
/// let (environment, command) = split_environment("DEB_BUILD=1 brush --message 'two words'")?;
/// assert_eq!(environment["DEB_BUILD"], "1");
/// assert_eq!(command, "brush --message 'two words'");
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
pub fn split_environment(command: &str) -> Result<(BTreeMap<String, String>, String), Invalid> {
    let words =
        shlex::split(command).ok_or_else(|| Invalid::new("command", "has an unfinished quote"))?;
    let assignments = words
        .iter()
        .take_while(|word| as_assignment(word).is_some())
        .count();
    if assignments == 0 {
        return Ok((BTreeMap::new(), command.to_owned()));
    }
    let (environment, rest) = words.split_at(assignments);
    let environment = environment
        .iter()
        .filter_map(|w| as_assignment(w))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let rest = rest
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ");
    Ok((environment, rest))
}

/// Quotes a word for a shell as Python's `shlex.quote` does: nothing for plain words, single quotes
/// otherwise.
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
    fn leading_assignments_become_the_environment() {
        let (env, rest) = split_environment("FOO=bar BAZ='a b' cmd --opt 'x y'").unwrap();
        assert_eq!(
            env,
            BTreeMap::from([("FOO".into(), "bar".into()), ("BAZ".into(), "a b".into())])
        );
        assert_eq!(rest, "cmd --opt 'x y'");
        let (env, rest) = split_environment("cmd A=1 | tee x").unwrap();
        assert!(env.is_empty(), "{env:?}");
        assert_eq!(rest, "cmd A=1 | tee x");
        assert!(split_environment("cmd 'open").is_err());
    }

    proptest! {
        #[test]
        fn quoted_word_splits_back_into_itself(word in "\\PC{0,20}") {
            prop_assert_eq!(shlex::split(&quote(&word)).unwrap(), vec![word]);
        }
    }
}
