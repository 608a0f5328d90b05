//! Commands of candidates: text for a shell, whose leading `KEY=value` words are the environment.
//!
//! One rule holds for all of them. The words `KEY=value` at the start become environment variables,
//! with the quotes around their values removed as a shell removes them; the rest stays as it is
//! written. Run by `sh -c`, environment and rest do what the whole text does, with two exceptions:
//! the variables are there for all of the rest, also after an operator (`A=1 a | b`), and while it
//! is expanded (`A=1 echo $A`).

use super::Invalid;
use std::collections::BTreeMap;

/// The characters that end a word of a shell, or begin an operator.
const OPERATORS: &str = ";&|<>()";
/// The operators that cannot begin a command: what stands before them must stay there.
const JOINING: &str = ";&|()";

/// Returns whether `key` is a name that a shell accepts for a variable.
fn is_variable(key: &str) -> bool {
    let mut chars = key.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Removes blanks and continued lines from the start.
fn skip_blanks(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches([' ', '\t', '\n', '\r']);
        match text.strip_prefix("\\\n") {
            Some(rest) => text = rest,
            None => return text,
        }
    }
}

/// Reads the value of an assignment from the start of `text`: the value without its quotes, and
/// what follows it. `None` when a shell would compute the value (`$HOME`, `` `date` ``, `~/x`) or
/// when no blank ends the word, so that it is no plain assignment.
fn read_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    let mut quote = None;
    // A tilde stands for a home at the start of the value, and after each colon.
    let mut home_may_follow = true;
    while let Some((at, c)) = chars.next() {
        let may_be_home = std::mem::replace(&mut home_may_follow, quote.is_none() && c == ':');
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => value.push(c),
            (_, '$' | '`') => return None,
            (Some(_), '\\') => match chars.next()?.1 {
                '\n' => {}
                c if "$`\"\\".contains(c) => value.push(c),
                c => value.extend(['\\', c]),
            },
            (None, '\\') => value.extend(Some(chars.next()?.1).filter(|c| *c != '\n')),
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ' | '\t' | '\n') => return Some((value, text.get(at..)?)),
            (None, '~') if may_be_home => return None,
            (None, c) if OPERATORS.contains(c) => return None,
            (_, c) => value.push(c),
        }
    }
    quote.is_none().then_some((value, ""))
}

/// Reads one assignment from the start of `text`.
fn read_assignment(text: &str) -> Option<(&str, String, &str)> {
    let (key, after) = text.split_once('=').filter(|(key, _)| is_variable(key))?;
    let (value, rest) = read_value(after)?;
    Some((key, value, rest))
}

/// Checks that a command can be split into words: every quote is closed, and no backslash is the
/// last character. `#` starts no comment, so that a quote after it must be closed as well.
///
/// # Errors
///
/// [`Invalid`] when a quote is open at the end.
pub fn validate(command: &str) -> Result<(), Invalid> {
    let (mut quote, mut escaped) = (None, false);
    for c in command.chars() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    if quote.is_some() || escaped {
        return Err(Invalid::new("command", "has an unfinished quote"));
    }
    Ok(())
}

/// Splits a command into its leading environment and the rest, which stays as it is written. A
/// command without a leading environment is returned as it is.
///
/// A word whose value the shell would have to compute (`A=$HOME`) ends the environment, and so does
/// one before an operator (`A=1; b`): the shell gives both their meaning.
///
/// # Errors
///
/// [`Invalid`] when a quote is not closed.
///
/// ```
/// use janitor_runner::domain::command::split_environment;
///
/// let (environment, command) = split_environment("DEB_BUILD=1 brush 'two words' >> log")?;
/// assert_eq!(environment["DEB_BUILD"], "1");
/// assert_eq!(command, "brush 'two words' >> log");
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
pub fn split_environment(command: &str) -> Result<(BTreeMap<String, String>, String), Invalid> {
    validate(command)?;
    let (mut environment, mut rest) = (BTreeMap::new(), skip_blanks(command));
    while let Some((key, value, after)) = read_assignment(rest) {
        environment.insert(key.to_owned(), value);
        rest = skip_blanks(after);
    }
    if environment.is_empty() || rest.starts_with(|c| JOINING.contains(c)) {
        return Ok((BTreeMap::new(), command.to_owned()));
    }
    Ok((environment, rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn split(command: &str) -> (Vec<(String, String)>, String) {
        let (environment, rest) = split_environment(command).unwrap();
        (environment.into_iter().collect(), rest)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn leading_assignments_become_the_environment() {
        let (environment, rest) = split("FOO=bar BAZ='a b' cmd --opt 'x y'");
        assert_eq!(environment, pairs(&[("BAZ", "a b"), ("FOO", "bar")]));
        assert_eq!(rest, "cmd --opt 'x y'");
    }

    #[test]
    fn rest_stays_as_written() {
        for rest in [
            "x >> f",
            "a | b",
            "a && b || c",
            "cmd \"$HOME\"  two   blanks ",
            "cmd # not a comment",
            "cmd B=2",
            ">f cmd",
            "echo $(date)",
        ] {
            assert_eq!(split(&format!("A=1 {rest}")).1, rest);
            assert_eq!(split(rest), (vec![], rest.to_owned()));
        }
    }

    #[test]
    fn values_lose_their_quotes_as_in_a_shell() {
        for (word, value) in [
            ("", ""),
            ("''", ""),
            ("a#b", "a#b"),
            ("a\\ b", "a b"),
            ("'a'\"b\"c", "abc"),
            ("\"a\\\"b\\n\"", "a\"b\\n"),
            ("'$HOME `x`'", "$HOME `x`"),
            ("a=b", "a=b"),
            ("a\\\nb", "ab"),
        ] {
            let (environment, rest) = split(&format!("A={word} cmd"));
            assert_eq!(environment, pairs(&[("A", value)]), "{word}");
            assert_eq!(rest, "cmd", "{word}");
        }
    }

    #[test]
    fn what_only_a_shell_can_compute_is_left_to_it() {
        for command in [
            "A=$HOME cmd",
            "A=`date` cmd",
            "A=\"$B\" cmd",
            "A=~/x cmd",
            "A=/y:~/x cmd",
            "A=1; cmd",
            "A=1 && cmd",
            "A=1 | cmd",
            "A=1>f cmd",
            "'A'=1 cmd",
            "1A=1 cmd",
            "A+=1 cmd",
        ] {
            assert_eq!(split(command), (vec![], command.to_owned()));
        }
        assert_eq!(split("A=1 B=$A cmd").1, "B=$A cmd");
    }

    #[test]
    fn open_quote_is_invalid() {
        for command in ["cmd 'open", "A='x cmd", "cmd \"x", "cmd # don't", "cmd \\"] {
            assert!(split_environment(command).is_err(), "{command}");
            assert!(validate(command).is_err(), "{command}");
        }
        assert!(validate("cmd \"don't\" 'a\"b' \\'").is_ok());
    }

    #[test]
    fn assignments_alone_leave_an_empty_command() {
        assert_eq!(split("A=1 "), (pairs(&[("A", "1")]), String::new()));
    }

    /// Runs a command by a shell; returns whether it succeeded and what it wrote.
    fn run(command: &str, environment: &BTreeMap<String, String>) -> (bool, Vec<u8>) {
        let output = Command::new("sh")
            .args(["-c", command])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/a-home")
            .envs(environment)
            .current_dir("/")
            .output()
            .unwrap();
        (output.status.success(), output.stdout)
    }

    /// A value of an assignment as somebody may write it.
    fn written_value() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-z0-9#=~:.,/@%+-]{0,4}",
            "'[ a-z$`\"\\\\#;|&~]{0,4}'",
            "\"[ a-z'#;|&~]{0,4}\"",
            Just("\\ ".to_owned()),
            Just("\\'".to_owned()),
            Just("\"\\\\x\\\"\"".to_owned()),
            Just("$HOME".to_owned()),
            Just("\"${HOME}\"".to_owned()),
            Just("`echo hi`".to_owned()),
        ];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
        #[test]
        fn environment_and_rest_do_what_the_whole_command_does(
            values in prop::collection::vec(written_value(), 0..3),
            between in prop_oneof![Just(" "), Just("\t "), Just(" \\\n")],
            rest in prop_oneof![
                Just("sh -c 'echo \"$A0|$A1|$A2\"'"),
                Just("sh -c 'echo \"$A0|$A1\"' | cat"),
                Just("sh -c 'echo \"$A0\"' >> /dev/stdout && echo more"),
                Just("env | grep ^A[0-9] | sort; echo \"two  blanks\" # comment"),
                Just("| cat"),
                Just("; echo x"),
                Just(""),
            ],
        ) {
            let mut command = String::new();
            for (index, value) in values.iter().enumerate() {
                command += &["A", &index.to_string(), "=", value, between].concat();
            }
            command += rest;
            let (environment, left) = split_environment(&command).unwrap();
            prop_assert!(command.ends_with(&left));
            prop_assert_eq!(
                run(&left, &environment),
                run(&command, &BTreeMap::new()),
                "{:?} became {:?} and {:?}", command, environment, left
            );
        }
    }
}
